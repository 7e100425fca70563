"""`pansynth keys`, and who is let in where."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from app.access.api_keys import FORM
from app.database import connect
from app.tables import ApiKey, AuditEntry, Pool
from cli.failure import Failure
from cli.fleet import guarded, settings_for
from cli.main import app


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PANSYNTH_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments], catch_exceptions=False)


def read(*arguments: str) -> Any:
    return json.loads(keys(*arguments, "--json").stdout)


@pytest.fixture
def tables() -> None:
    CliRunner().invoke(app, ["migrate"], catch_exceptions=False)


@pytest.mark.usefixtures("tables")
def test_no_key_yet_is_said_beside_the_list() -> None:
    listed = keys("list")
    assert (listed.stdout, json.loads(keys("list", "--json").stdout)) == ("", [])
    assert "there is no key yet" in listed.stderr


def test_a_key_is_told_once_and_alone_on_the_standard_output(tmp_path: Path) -> None:
    made = keys("create", "laptop", "--data-dir", str(tmp_path / "here"))
    assert FORM.fullmatch(made.stdout.strip())
    assert f"in {tmp_path / 'here'}: keep it, it is not shown again" in made.stderr
    listed = keys("list").stdout
    assert made.stdout.strip()[:21] in listed and "read,submit" in listed
    assert made.stdout.strip()[22:] not in listed + keys("list", "--json").stdout


def test_a_key_has_what_it_was_given() -> None:
    options = ["--tenant", "clinic", "--scope", "read", "--scope", "admin", "--expires-days", "2"]
    limits = {"max_queued_jobs": 3, "max_bytes_per_day": 10**12, "max_samples_per_day": 500}
    for name, value in limits.items():
        options += [f"--{name.replace('_', '-')}", str(value)]
    made = read("create", "laptop", *options)
    (listed,) = read("list")
    assert made == {"key": made["key"]} | listed
    assert (listed["tenant"], listed["scopes"], listed["state"]) == ("clinic", ["read", "admin"], "active")
    assert {name: listed[name] for name in limits} == limits
    left = datetime.fromisoformat(listed["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=1, hours=23) < left < timedelta(days=2)
    assert made["key"].startswith(listed["prefix"])


def test_the_list_tells_people_of_limits_and_of_the_end_too() -> None:
    keys("create", "laptop", "--expires-days", "2", "--max-queued-jobs", "3", "--max-bytes-per-day", "0")
    keys("create", "desk")
    end = read("list")[0]["expires_at"][:16]
    bounded, unbounded = keys("list").stdout.splitlines()
    assert bounded.endswith(f"never used  laptop (until {end} UTC, max_queued_jobs 3, max_bytes_per_day 0)")
    assert unbounded.endswith("never used  desk")


@pytest.mark.usefixtures("tables")
def test_a_key_that_may_never_submit_is_one_without_the_scope() -> None:
    refused = keys("create", "laptop", "--max-queued-jobs", "0")
    assert refused.exit_code == 2 and "Invalid value" in refused.stderr
    assert read("list") == []


@pytest.mark.parametrize(
    "limit", [("--max-queued-jobs", 2**31), ("--max-bytes-per-day", 2**63), ("--max-samples-per-day", 2**63)]
)
def test_a_limit_that_no_database_can_hold_is_refused(limit: tuple[str, int]) -> None:
    option, value = limit
    refused = keys("create", "laptop", option, str(value))
    assert refused.exit_code == 2 and "Invalid value" in refused.stderr
    assert len(keys("create", "laptop", option, str(value - 1)).stdout.split()) == 1
    assert len(read("list")) == 1


def test_a_tenants_first_key_comes_with_its_pool_and_all_is_audited(data_dir: Path) -> None:
    prefix = read("create", "a", "--tenant", "clinic")["prefix"]
    keys("create", "b", "--tenant", "clinic")
    assert "is revoked" in keys("revoke", prefix).stdout
    assert [key["state"] for key in read("list")] == ["revoked", "active"]
    database = connect(f"sqlite:///{data_dir / 'pansynth.sqlite'}")
    with database.read() as session:
        assert [(pool.tenant, pool.name) for pool in session.scalars(select(Pool))] == [("clinic", "default")]
        entries = list(session.scalars(select(AuditEntry)))
        actions = [(row.action, row.tenant) for row in entries]
        assert actions == [("keys create", "clinic")] * 2 + [("keys revoke", "clinic")]
        assert [entries[i].object for i in (0, 2)] == [f"keys/{prefix}"] * 2
    database.dispose()


def test_a_key_that_leaked_is_revoked_as_it_leaked_and_not_repeated() -> None:
    made = read("create", "laptop")
    assert keys("revoke", made["key"]).stdout == f"{made['prefix']} is revoked\n"
    revoked = read("list")
    keys("revoke", made["prefix"])
    assert read("list") == revoked, "since when, too"
    with pytest.raises(Failure, match="there is no key 'pansynth_0123456789ab'"):
        keys("revoke", "pansynth_0123456789ab_secret")


@pytest.mark.usefixtures("tables")
def test_what_is_wrong_is_refused_with_words() -> None:
    for arguments, words in (
        (["revoke", "pansynth_0"], "there is no key 'pansynth_0'"),
        (["create", "x", "--tenant", "Clinic A"], "--tenant 'Clinic A'"),
        (["create", "a\nb"], "cannot be a key's name: give 1 to 63 printable characters"),
    ):
        with pytest.raises(Failure, match=words):
            keys(*arguments)
    assert read("list") == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_on_loopback_keys_are_asked_for_where_that_is_set(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not guarded(settings_for(None), host).api_keys_required
    monkeypatch.setenv("PANSYNTH_API_KEYS_REQUIRED", "true")
    assert guarded(settings_for(None), host).api_keys_required


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_beyond_loopback_they_always_are_and_one_must_be_there(host: str, data_dir: Path) -> None:
    def refused() -> None:
        with pytest.raises(Failure, match="Make one first: pansynth keys create NAME"):
            guarded(settings_for(None), host)

    refused()
    assert not data_dir.exists()
    prefix = read("create", "laptop")["prefix"]
    assert guarded(settings_for(None), host).api_keys_required
    keys("revoke", prefix)
    refused()
    keys("create", "late", "--expires-days", "0")
    refused()


def test_a_fleet_needs_a_secret_that_its_machines_share(monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
    monkeypatch.setenv("PANSYNTH_DATABASE_URL", postgres_url)
    with pytest.raises(Failure, match="set PANSYNTH_KEY_SECRET"):
        keys("create", "laptop")
    with pytest.raises(Failure, match="Make one first"):
        guarded(settings_for(None), "0.0.0.0")
    monkeypatch.setenv("PANSYNTH_KEY_SECRET", "s" * 32)
    keys("create", "laptop")
    assert guarded(settings_for(None), "0.0.0.0").api_keys_required
    monkeypatch.delenv("PANSYNTH_KEY_SECRET")
    with pytest.raises(Failure, match="set PANSYNTH_KEY_SECRET"):
        guarded(settings_for(None), "0.0.0.0")


def test_what_works_on_a_database_elsewhere_makes_no_folder_here(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str, data_dir: Path
) -> None:
    monkeypatch.setenv("PANSYNTH_DATABASE_URL", postgres_url)
    monkeypatch.setenv("PANSYNTH_KEY_SECRET", "s" * 32)
    CliRunner().invoke(app, ["migrate"], catch_exceptions=False)
    keys("create", "laptop")
    assert not data_dir.exists()


@pytest.mark.parametrize("arguments", [["list"], ["revoke", "pansynth_0123456789ab"]])
def test_a_folder_that_is_not_the_services_is_told_and_nothing_made_there(data_dir: Path, arguments: list[str]) -> None:
    with pytest.raises(Failure, match=f"^the database in {data_dir}: pansynth has no tables there"):
        keys(*arguments)
    assert not data_dir.exists()


def test_a_database_that_is_away_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANSYNTH_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(Failure, match=r"^PANSYNTH_DATABASE_URL: .+$"):
        guarded(settings_for(None), "0.0.0.0")


def test_only_the_hash_is_stored(data_dir: Path) -> None:
    token = keys("create", "laptop").stdout.strip()
    assert token[22:].encode() not in b"".join(path.read_bytes() for path in data_dir.iterdir())
    database = connect(f"sqlite:///{data_dir / 'pansynth.sqlite'}")
    with database.read() as session:
        assert len(session.scalars(select(ApiKey)).one().digest) == 64
    database.dispose()

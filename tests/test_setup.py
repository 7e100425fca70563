"""The files that install and deploy it agree with the code."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from app.settings import Settings

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("api", "worker", "worker-gpu", "migrate")
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def commands() -> set[str]:
    from cli.main import app

    return {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}


def test_every_dependency_is_pinned_in_the_constraints_to_a_version_that_every_index_has() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in lines)
    pinned = {name_of(line) for line in lines}
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    assert {name_of(requirement) for requirement in wanted} <= pinned


def test_the_makefile_has_the_promised_targets() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"setup", "demo", "test", "lint"} <= targets


def test_make_says_what_is_missing_where_there_is_no_python(tmp_path: Path) -> None:
    for tool in ("make", "sh", "touch"):
        (tmp_path / tool).symlink_to(next(Path(d) / tool for d in os.get_exec_path() if (Path(d) / tool).exists()))
    command = ["make", "-C", str(ROOT), "setup", f"VENV={tmp_path}/venv"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "pansynth needs Python 3.11 or newer" in done.stderr


def test_ci_runs_the_linters_and_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert {"make lint", "make test"} <= set(script.read_text().splitlines())


@pytest.mark.parametrize("service", OURS)
def test_a_service_of_ours_runs_a_command_that_there_is(service: str) -> None:
    assert SERVICES[service]["command"][0] in commands()


def test_the_image_runs_a_command_that_there_is() -> None:
    assert re.search(r'^CMD \["(\w+)"', DOCKERFILE, re.MULTILINE)[1] in commands()


@pytest.mark.parametrize("service", OURS)
def test_a_service_is_given_settings_that_there_are(service: str) -> None:
    given = [name for name in SERVICES[service]["environment"] if name.startswith("PANSYNTH_")]
    assert given
    assert {name.removeprefix("PANSYNTH_").lower() for name in given} <= set(Settings.model_fields)


def test_the_settings_of_the_fleet_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICES["api"]["environment"].items():
        if name.startswith("PANSYNTH_"):
            monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value))
    settings = Settings()
    assert settings.database() == "postgresql+psycopg://pansynth:pansynth@postgres:5432/pansynth"
    assert settings.broker() == "redis://valkey:6379/0"
    assert settings.blobs() == "s3://pansynth"


def test_services_depend_on_services_that_there_are_and_that_say_when_they_are_healthy() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES, name
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[needed]["healthcheck"], needed


def test_a_database_that_is_being_made_is_not_healthy_yet() -> None:
    """It answers `pg_isready` on its socket, and refuses who comes from another container, as `migrate` does."""
    assert "-h 127.0.0.1" in " ".join(SERVICES["postgres"]["healthcheck"]["test"])


def test_the_fleet_is_reached_from_this_machine_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 1
    assert published[0].startswith("127.0.0.1:")


def test_the_image_copies_what_is_there_and_is_let_in() -> None:
    let_in = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if "!" in line}
    for sources in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert source in let_in


def test_the_image_runs_as_nobody_in_particular_and_says_whether_it_is_healthy() -> None:
    user = re.search(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)  # a name tells a cluster nothing of who that is
    assert user and int(user[1]) > 0 and f"--uid {user[1]} " in DOCKERFILE
    assert "HEALTHCHECK" in DOCKERFILE


def test_the_package_holds_what_the_service_reads_beside_its_code() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    beside = [
        path
        for room in ("app", "worker", "models", "cli")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    for path in beside:
        room, *rest = path.relative_to(ROOT).parts
        inside = Path(*rest)
        assert any(
            inside.match(pattern) or inside.parts[0] == pattern.split("/")[0] for pattern in data.get(room, [])
        ), path

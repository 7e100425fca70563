"""app/access/secret.py: where the server's secret comes from."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.access.secret import FILE, BadSecret, secret_of, sign
from app.settings import Settings

LONG = "0123456789abcdef" * 4


def test_the_setting_is_the_secret(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, key_secret=LONG)
    assert secret_of(settings) == LONG.encode()
    assert not list(tmp_path.iterdir())
    assert LONG not in repr(settings)


def test_without_it_a_file_is_made_once_that_only_we_can_read(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    with ThreadPoolExecutor(8) as threads:
        secrets = set(threads.map(lambda _: secret_of(settings), range(16)))
    (file,) = (tmp_path / "data").iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == (FILE, 0o600)
    assert secrets == {file.read_bytes()} and len(file.read_bytes()) == 64


def test_a_secret_that_is_too_short_is_refused_without_telling_it(tmp_path: Path) -> None:
    with pytest.raises(BadSecret, match="has 7 characters") as refused:
        secret_of(Settings(data_dir=tmp_path, key_secret="swordfi"))
    assert "swordfi" not in str(refused.value)
    (tmp_path / FILE).touch()
    with pytest.raises(BadSecret, match="holds no secret"):
        secret_of(Settings(data_dir=tmp_path))


def test_a_database_that_machines_share_needs_a_secret_that_they_share(tmp_path: Path) -> None:
    with pytest.raises(BadSecret, match="so set PANSYNTH_KEY_SECRET"):
        secret_of(Settings(data_dir=tmp_path, database_url="postgresql://db/pansynth"))


def test_what_is_signed_for_one_purpose_is_worth_nothing_for_another() -> None:
    assert len({sign(b"s", "key", "x"), sign(b"s", "ticket", "x"), sign(b"t", "key", "x"), sign(b"s", "key", "y")}) == 4

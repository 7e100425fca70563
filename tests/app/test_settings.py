"""app/settings.py: where things are that are not told."""

from pathlib import Path

import pytest

from app import broker, database
from app.settings import Settings, broker_socket


def test_a_setting_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `${DATA_DIR:-}` of a compose file leaves it: data and weights would be those of the current folder."""
    names = ("data_dir", "weights_dir", "max_pixels", "device")
    unset = {name: getattr(Settings(), name) for name in names}
    for name in names:
        monkeypatch.setenv(f"PANSYNTH_{name.upper()}", "")
    assert {name: getattr(Settings(), name) for name in names} == unset


def test_a_sockets_path_is_short_however_long_the_folders_is(tmp_path: Path) -> None:
    assert broker_socket(tmp_path) == tmp_path / "broker.sock"
    assert len(str(broker_socket(tmp_path / ("x" * 150)))) < 100
    assert broker_socket(tmp_path / ("x" * 150)) != broker_socket(tmp_path / ("y" * 150))


def test_a_worker_beside_the_service_finds_its_broker_wherever_the_folder_is(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / ("x" * 150)):
        assert Settings(data_dir=folder).broker() == f"redis+socket://{broker_socket(folder)}"


@pytest.mark.parametrize("name", ["80%25 done", "#2", "which?"])
def test_a_data_folder_may_have_any_name(tmp_path: Path, broker_url: str, name: str) -> None:
    settings = Settings(data_dir=tmp_path / name)
    database.migrate(settings.database())
    assert (tmp_path / name / "pansynth.sqlite").stat().st_size
    broker_socket(settings.data_dir).symlink_to(broker_url.removeprefix("redis+socket://"))
    broker.ping(broker.celery_app(settings))
    assert [path.name for path in tmp_path.iterdir()] == [name]

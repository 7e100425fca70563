"""app/settings.py: where things are that are not told."""

from pathlib import Path

from app.settings import Settings, broker_socket


def test_a_sockets_path_is_short_however_long_the_folders_is(tmp_path: Path) -> None:
    assert broker_socket(tmp_path) == tmp_path / "broker.sock"
    assert len(str(broker_socket(tmp_path / ("x" * 150)))) < 100
    assert broker_socket(tmp_path / ("x" * 150)) != broker_socket(tmp_path / ("y" * 150))


def test_a_worker_beside_the_service_finds_its_broker_wherever_the_folder_is(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / ("x" * 150)):
        assert Settings(data_dir=folder).broker() == f"redis+socket://{broker_socket(folder)}"

"""What the commands do before and without a service."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest
import typer
from typer.testing import CliRunner

from cli.children import pansynth
from cli.failure import Failure, Interrupted
from cli.fleet import migrate_tables, serve, settings_for, worker
from cli.main import app, main
from cli.pool import _batches, _files
from cli.synthesize import _words
from models.pixels import image_from_png, mask_from_png
from tests.full_disk import no_file_above
from tests.waiting import until


def test_help_comes_at_once() -> None:
    """What takes long to load is not loaded for it."""
    command = [sys.executable, "-X", "importtime", *pansynth("--help")[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "typer" in loaded
    heavy = {"torch", "diffusers", "numpy", "PIL", "fastapi", "pydantic", "sqlalchemy", "celery", "httpx", "obstore"}
    assert not loaded & heavy
    for command in ("up", "serve", "worker", "migrate", "keys", "pool", "synthesize", "demo", "phantoms", "train"):
        assert command in done.stdout


def test_help_cuts_nothing_off_on_a_terminal_of_80_columns() -> None:
    commands = [([], typer.main.get_command(app))]
    for names, command in commands:
        shown = CliRunner().invoke(app, [*names, "--help"], catch_exceptions=False, terminal_width=80).stdout
        options = [
            name
            for param in command.params
            if not getattr(param, "hidden", False)
            for name in (*param.opts, *param.secondary_opts)
        ]
        assert all(name in shown for name in options if name.startswith("--"))
        assert not [line for line in shown.partition("Commands:")[2].splitlines() if line.endswith("...")]
        commands += [([*names, name], part) for name, part in getattr(command, "commands", {}).items()]
    assert len(commands) > 15


def test_help_explains_every_option_in_words_of_its_own() -> None:
    commands = [typer.main.get_command(app)]
    for command in commands:
        told = [param.help for param in command.params if getattr(param, "help", None)]
        assert len(set(told)) == len(told), command.name
        commands += getattr(command, "commands", {}).values()
    assert len(commands) > 15


def test_phantoms_come_as_images_masks_and_regions_of_the_same_names(tmp_path: Path) -> None:
    CliRunner().invoke(app, ["phantoms", "--out", str(tmp_path), "--count", "2", "--seed", "5"], catch_exceptions=False)
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert len(names) == 2
    for name in names:
        image = image_from_png((tmp_path / "images" / name).read_bytes())
        mask = mask_from_png((tmp_path / "masks" / name).read_bytes())
        region = mask_from_png((tmp_path / "regions" / name).read_bytes())
        assert image.shape == mask.shape == region.shape == (256, 512)
        assert 0 < mask.mean() < region.mean() < 1


def test_ctrl_c_while_phantoms_are_drawn_is_no_traceback(tmp_path: Path) -> None:
    command = pansynth("phantoms", "--out", str(tmp_path), "--count", "128")
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell has it ignored in the background
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard
    ) as drawing:
        until(lambda: any(imports_numpy(child) for child in psutil.Process(drawing.pid).children()))
        os.killpg(drawing.pid, signal.SIGINT)
        assert drawing.communicate()[1] == ""
    assert drawing.returncode == 130
    assert len(list((tmp_path / "images").iterdir())) < 128


def imports_numpy(process: psutil.Process) -> bool:
    """It has begun to import what phantoms are drawn with, which takes it about a second."""
    return any("/numpy/" in mapped.path for mapped in process.memory_maps())


def test_an_unknown_look_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="unknown look 'sepia'; choose from plain"):
        CliRunner().invoke(app, ["phantoms", "--out", str(tmp_path), "--looks", "plain,sepia"], catch_exceptions=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("MAX_PIXELS", "-3", "should be greater than 0"),
        ("MAX_PIXELS", "999999999999999999", "should be less than or equal to 1000000000000"),
        ("WEIGHTS_DIR", "/no/such/folder", "path does not point to a directory"),
        ("WEIGHTS_DIR", "models/weights/default", "should be the folder above: this one is weights itself"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"PANSYNTH_{setting}", value)
    with pytest.raises(Failure, match=f"^PANSYNTH_{setting} is '{value}': {words}$"):
        settings_for(None)


@pytest.mark.parametrize(
    ("setting", "value"), [("WEBHOOK_SECRET", "whsec_nearlyright"), ("BROKER_URL", "valkey://me:nearlyright@host:6379")]
)
def test_a_secret_that_is_wrong_is_not_shown(monkeypatch: pytest.MonkeyPatch, setting: str, value: str) -> None:
    monkeypatch.setenv(f"PANSYNTH_{setting}", value)
    with pytest.raises(Failure, match=f"PANSYNTH_{setting}") as failed:
        settings_for(None)
    assert "nearlyright" not in str(failed.value)


def test_a_misspelt_setting_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PANSYNTH_KEYS_REQUIRED", "true")
    assert not settings_for(None).api_keys_required
    assert capsys.readouterr().err == "pansynth: PANSYNTH_KEYS_REQUIRED is ignored, there is no such setting\n"


def test_what_kubernetes_tells_of_a_service_called_pansynth_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for service in ("PANSYNTH", "PANSYNTH_API"):
        for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8000_TCP"):
            monkeypatch.setenv(f"{service}_{name}", "10.0.0.1")
        for name in ("PROTO", "PORT", "ADDR"):
            monkeypatch.setenv(f"{service}_PORT_8000_TCP_{name}", "tcp")
    settings_for(None)
    assert capsys.readouterr().err == ""


def test_the_files_of_a_folder_are_named_by_where_they_lie_in_it(tmp_path: Path) -> None:
    (tmp_path / "clinic").mkdir()
    for name in ("b.PNG", "clinic/a.dcm", "notes.txt"):
        (tmp_path / name).touch()
    assert [name for _, name, _ in _files([tmp_path])] == ["b.PNG", "clinic/a.dcm"]


@pytest.mark.parametrize("path", ["nothing", "empty"])
def test_a_path_without_images_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Failure, match=path):
        list(_files([tmp_path / path]))


def test_uploads_are_cut_into_batches_and_archives_go_alone(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.touch()
    with large.open("wb") as file:
        file.truncate(30_000_000)
    files = [("images", "a", large), ("images", "b", large), ("archive", "c", small), ("images", "d", small)]
    files += [("images", "e", small)] * 100
    assert [len(batch) for batch in _batches(files)] == [1, 1, 1, 100, 1]


def test_a_database_of_a_newer_version_is_told_in_a_line(tmp_path: Path) -> None:
    settings = settings_for(None).model_copy(update={"data_dir": tmp_path})
    migrate_tables(settings)
    with closing(sqlite3.connect(tmp_path / "pansynth.sqlite")) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
        newer.commit()
    with pytest.raises(Failure, match=r"revision '9999' is unknown here: it was made by a newer version"):
        migrate_tables(settings)


def test_a_folder_that_cannot_be_made_is_a_line_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "file" / "phantoms"
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["pansynth", "phantoms", "--count", "1", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"pansynth: {tmp_path / 'file'}") and said.count("\n") == 1


def test_a_folder_that_has_no_room_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pansynth", "phantoms", "--count", "1", "--out", str(tmp_path)])
    with pytest.raises(SystemExit), no_file_above(1000):
        main()
    assert f"pansynth: {tmp_path}: File too large" in capsys.readouterr().err


def test_a_full_disk_is_a_line_and_no_traceback(full_device: Path) -> None:
    with full_device.open("w") as full:
        done = subprocess.run(pansynth("keys", "--help"), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("pansynth: No space left on device\n")
    assert "Traceback" not in done.stderr


def test_a_name_beyond_the_encoding_of_the_output_is_told_all_the_same(tmp_path: Path) -> None:
    """As on systems of another encoding than UTF-8."""
    command = pansynth("phantoms", "--count", "1", "--out", str(tmp_path / "r\u00f6ntgen \u96ea"))
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="latin-1", check=True)
    assert done.stdout.endswith("r\u00f6ntgen \\u96ea\n")


@pytest.mark.parametrize("failure, status", [(Failure("no"), 1), (Interrupted("the job goes on"), 130)])
def test_ctrl_c_has_an_exit_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: Failure, status: int
) -> None:
    def fail() -> None:
        raise failure

    monkeypatch.setattr("cli.main.app", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    assert capsys.readouterr().err == f"pansynth: {failure}\n"


@pytest.mark.parametrize(
    ("name", "users", "ours"), [("OMP_WAIT_POLICY", "ACTIVE", "PASSIVE"), ("OPENBLAS_NUM_THREADS", "2", "1")]
)
def test_no_thread_spins_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, name: str, users: str, ours: str
) -> None:
    monkeypatch.setattr("cli.main.app", lambda: None)
    monkeypatch.setenv(name, users)
    main()
    assert os.environ[name] == users
    monkeypatch.delenv(name)
    main()
    assert os.environ[name] == ours


@pytest.mark.parametrize(
    ("guides", "words"),
    [
        ("", "no guide; give --image and --mask, or --labeled"),
        ("--image a.png --image b.png --mask a.png", "2 --image and 1 --mask; give one mask per image"),
        ("--labeled guides --image a.png", "--labeled and --image; give the folder of all guides, or the files"),
        ("--labeled guides", "guides: it needs the folders images/ and masks/"),
        ("--image a.png --mask b.png", "a.png: no such file"),
        ("--image .. --mask ..", r"\.\.: it is a folder; give a file of it, or a folder of all guides as --labeled"),
    ],
)
def test_guides_that_are_not_there_or_given_twice_are_told(guides: str, words: str) -> None:
    with pytest.raises(Failure, match=f"^{words}"):
        CliRunner().invoke(app, ["synthesize", *guides.split()], catch_exceptions=False)


@pytest.mark.parametrize("command", ["synthesize --image {0} --mask {0}", "evaluate --labeled {0}"])
def test_what_could_not_be_written_is_told_before_the_job(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    arguments = [*command.format(tmp_path / "file").split(), "--out", "/proc/made"]
    with pytest.raises(Failure, match="--out /proc/made: /proc cannot be written"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DATABASE_URL", "sqlite:////proc/made/pansynth.sqlite"),
        ("BLOB_URL", "file:///proc/made"),
    ],
)
def test_a_store_that_cannot_be_opened_is_told_by_its_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str, value: str
) -> None:
    monkeypatch.setenv("PANSYNTH_DATA_DIR", str(tmp_path))
    monkeypatch.setenv(f"PANSYNTH_{setting}", value)
    with pytest.raises(Failure, match=rf"^PANSYNTH_{setting}: .+$"):
        serve(port=0)


def test_a_port_that_is_taken_is_told_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = pansynth("serve", "--port", str(port), "--data-dir", str(tmp_path))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"pansynth: cannot listen on 127.0.0.1:{port}; choose another --port, 0 for a free one"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "mysql://clinic/pans"),
        ("DATABASE_URL", "postgresql://clinic:port/pans"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("BLOB_URL", "nonsense"),
        ("BLOB_URL", "ftp://clinic/pans"),
        ("BLOB_URL", "s3://"),
        ("BROKER_URL", "valkey://clinic:6379"),
        ("BROKER_URL", "clinic:6379"),
        ("BROKER_URL", "redis://clinic:65536/0"),
        ("DEVICE", "gpu"),
        ("DEVICE", "cuda:first"),
    ],
)
def test_a_wrong_setting_is_told_by_workers_too(monkeypatch: pytest.MonkeyPatch, setting: str, value: str) -> None:
    monkeypatch.setenv(f"PANSYNTH_{setting}", value)
    for begin in (partial(serve, port=0), worker):
        with pytest.raises(Failure, match=rf"^PANSYNTH_{setting} is '{value}': should be "):
            begin()


def test_a_worker_on_a_database_without_tables_says_what_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANSYNTH_DATA_DIR", str(tmp_path))
    words = "pansynth has no tables there; give the service's own --data-dir and settings, or make the tables: pansynth"
    with pytest.raises(Failure, match=f"^the database in {tmp_path}: {words} migrate$"):
        worker()
    assert not list(tmp_path.iterdir())
    (tmp_path / "pansynth.sqlite").touch()
    with pytest.raises(Failure, match=words):
        worker()


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (6, "4 samples in d.zip; 2 failed a threshold and were dropped"),
        (9, "could not be made, the first: loss is nan"),
    ],
)
def test_samples_that_are_not_there_are_told(done: int, words: str) -> None:
    job = {"progress": {"done": done}, "quality_summary": {"kept": 4, "dropped": 2}}
    job["failed_samples"] = [{"index": 0, "detail": "loss is nan"}] * (done - 6)
    assert _words(job, 4, Path("d.zip")).endswith(words)


def test_one_sample_is_one() -> None:
    job = {"progress": {"done": 2}, "quality_summary": {"kept": 1, "dropped": 1}}
    assert _words(job, 1, Path("d.zip")) == "1 sample in d.zip; 1 failed a threshold and was dropped"


def test_a_database_that_is_not_there_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANSYNTH_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(Failure, match=r"^PANSYNTH_DATABASE_URL: .+$"):
        migrate_tables(settings_for(None))

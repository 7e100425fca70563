"""`pansynth demo`: what a newcomer types first."""

import os
import re
import subprocess
from pathlib import Path

import psutil

from cli.children import pansynth
from cli.dataset import verify
from cli.held import held
from tests.system.running import ENVIRONMENT, PATIENT

pytestmark = PATIENT


def demo(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = pansynth("demo", "--dir", str(folder))
    return subprocess.run(command, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=240)


def running_in(folder: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"]) if _speaks_of(process, folder)]


def _speaks_of(process: psutil.Process, folder: Path) -> bool:
    return any(str(folder) in word for word in process.info["cmdline"] or [])


def test_the_demo_makes_a_dataset_and_says_where_it_lies(tmp_path: Path, weights_dir: Path) -> None:
    folder = tmp_path / "demo"
    done = demo(folder, PANSYNTH_WEIGHTS_DIR=str(weights_dir), PANSYNTH_BROKER_URL="redis://not-for-the-demo")
    assert done.returncode == 0, done.stderr
    assert verify(folder / "dataset.zip") == 5
    assert (folder / "preview.png").read_bytes().startswith(b"\x89PNG")
    for named in ("dataset.zip", "preview.png", "demo.log"):
        assert re.search(rf"{re.escape(str(folder / named))}$", done.stdout, re.MULTILINE)
    assert "pansynth synthesize" in done.stdout
    assert re.search(r"^sampling", done.stderr, re.MULTILINE)  # progress
    assert not running_in(folder)


def test_a_demo_that_fails_says_why_and_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = demo(folder, PANSYNTH_WEIGHTS_DIR=str(tmp_path), PANSYNTH_MAX_PIXELS="many")
    assert done.returncode == 1
    assert "pansynth: the demo failed: the service did not start" in done.stderr
    assert "PANSYNTH_MAX_PIXELS is 'many'" in done.stderr
    assert str(folder / "demo.log") in done.stderr
    assert not running_in(folder)


def test_a_second_demo_in_a_folder_leaves_the_first_one_its_files(tmp_path: Path) -> None:
    (tmp_path / "demo.log").write_text("the first one's")
    with held(tmp_path / "demo.lock", "", ""):
        done = demo(tmp_path)
    assert done.returncode == 1
    assert re.search(rf"another demo \(process {os.getpid()}\) is at work in {tmp_path}: let it end", done.stderr)
    assert (tmp_path / "demo.log").read_text() == "the first one's"


def test_the_demo_touches_no_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    done = demo(tmp_path)
    assert done.returncode == 1
    assert "holds other files; choose a new or empty folder" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]

"""`pansynth demo`: the whole way once, on phantoms, from nothing to a verified dataset."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cli.failure import Failure, Interrupted
from cli.held import held
from cli.labeled import Pair

# Seeds that the shipped weights were not trained on.
POOL_SEED, POOL_COUNT = 900_001, 40
GUIDE_SEED = 900_002
TOP_K = 5
READY_SECONDS = 240.0
STOP_SECONDS = 25.0
OF_OTHER_SERVICES = tuple(
    f"PANSYNTH_{name}" for name in ("DATABASE_URL", "BROKER_URL", "BLOB_URL", "API_KEYS_REQUIRED")
)


def demo(
    folder: Annotated[
        Path, typer.Option("--dir", help="A folder for the demo alone; a former demo's files are replaced.")
    ] = Path("pansynth-demo"),
) -> None:
    """Make a first dataset of phantoms, over HTTP. Starts the service, verifies the dataset, stops."""
    folder = folder.resolve()
    log = folder / "demo.log"
    started = time.monotonic()
    with _cleared(folder):
        try:
            with _service(folder, log) as service:
                pool, guides = _write_phantoms(folder, service, log)  # while the service starts
                count = _make_dataset(_wait_until_ready(service, log), folder, pool, guides)
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted("the demo was interrupted; everything is stopped") from None
        except Failure as failure:
            raise Failure(f"the demo failed: {failure}\nLogs: {log} and {folder / 'service' / 'logs'}") from failure
    _say_what_next(folder, log, count, time.monotonic() - started)


def _make_dataset(url: str, folder: Path, pool: list[Path], guides: list[Pair]) -> int:
    """The main job over HTTP: import a pool, post a guide, download and verify; the number of samples."""
    from cli.client import connect
    from cli.dataset import extract_preview, verify
    from cli.pool import import_files
    from cli.progress import progress
    from cli.synthesize import fetch_dataset

    with connect(url) as client:
        with progress("importing") as show:
            outcome = import_files(client, "demo", [("images", path.name, path) for path in pool], show)
        if outcome["stored"] != POOL_COUNT:
            raise Failure(f"{outcome['stored']} of {POOL_COUNT} pool images were stored: {outcome['rejected']}")
        typer.echo(f"pool of {POOL_COUNT} unlabeled phantoms imported")
        with progress("queued") as show:
            fields = {"pool": "demo", "top_k": TOP_K, "preset": "harmonize"}
            fetch_dataset(client, guides, fields, folder / "dataset.zip", show)
    count = verify(folder / "dataset.zip")
    typer.echo(f"{count} samples downloaded; every file agrees with the manifest's sha256")
    extract_preview(folder / "dataset.zip", folder / "preview.png")
    return count


def _write_phantoms(folder: Path, service: "subprocess.Popen[bytes]", log: Path) -> tuple[list[Path], list[Pair]]:
    """The pool's images and the guide, as files; not to the end where the service does not start."""
    from cli.phantoms import write_phantoms
    from cli.progress import progress
    from models.phantoms import LOOKS

    with progress("phantoms") as show:

        def look_and_show(done: int, total: int) -> None:
            _refuse_if_ended(service, log)
            show(done, total)

        pool = write_phantoms(folder / "pool", POOL_COUNT, POOL_SEED, LOOKS, look_and_show)
    guides = write_phantoms(folder / "guide", 1, GUIDE_SEED, LOOKS, lambda *_: None)
    return [image for image, _ in pool], guides


@contextmanager
def _cleared(folder: Path) -> Iterator[None]:
    """Without what a former demo left, and kept from others meanwhile. Raises Failure where one is at work there."""
    lock = folder / "demo.lock"
    if set(folder.glob("*")) - {lock} and not (folder / "demo.log").exists():
        raise Failure(f"--dir {folder} holds other files; choose a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    with held(lock, "another demo", f"is at work in {folder}: let it end, or choose another --dir"):
        for name in ("service", "pool", "guide"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for path in (*folder.glob("dataset.zip*"), folder / "preview.png", folder / "demo.log"):
            path.unlink(missing_ok=True)
        yield


@contextmanager
def _service(folder: Path, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A `pansynth up` of its own on a free port, which is being started."""
    from cli.children import kill_group, pansynth, start

    typer.echo("starting the service: API, worker and message broker ...")
    environment = {name: value for name, value in os.environ.items() if name not in OF_OTHER_SERVICES}
    command = pansynth("up", "--port", "0", "--data-dir", str(folder / "service"))
    process = start(command, log, environment, death_signal=signal.SIGTERM)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            kill_group(process)
            process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """The service's URL."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if ready := re.search(r"^pansynth is ready at (\S+)$", log.read_text(errors="replace"), re.MULTILINE):
            typer.echo(f"the service is ready at {ready[1]}")
            return ready[1]
        _refuse_if_ended(process, log)
        time.sleep(0.1)
    raise Failure(f"the service was not ready within {READY_SECONDS:.0f} s")


def _refuse_if_ended(process: "subprocess.Popen[bytes]", log: Path) -> None:
    if process.poll() is not None:
        raise Failure(f"the service did not start: {log.read_text(errors='replace').strip()[-1000:]}")


def _say_what_next(folder: Path, log: Path, count: int, seconds: float) -> None:
    program = "pansynth" if shutil.which("pansynth") else Path(sys.executable).with_name("pansynth")
    typer.echo(
        f"""
Done in {seconds:.0f} s: {count} synthetic labeled radiographs.

  dataset  {folder / "dataset.zip"}
  preview  {folder / "preview.png"}
  log      {log}

Next, with your own radiographs:

  {program} up
  {program} pool import default FOLDER_OF_UNLABELED_IMAGES
  {program} synthesize --image IMAGE.png --mask MASK.png --pool default --top-k 5 --out dataset.zip
"""
    )

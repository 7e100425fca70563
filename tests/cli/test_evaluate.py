"""`pansynth evaluate` from a folder to an answer: the real API, a real worker, tiny networks."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner

from app.settings import Settings
from cli.main import app
from cli.phantoms import write_phantoms
from models.phantoms import LOOKS
from tests.serving import serving
from tests.tiny import make_tiny_weights
from worker.tasks import work
from worker.workplace import open_workplace


@contextmanager
def worker(settings: Settings) -> Iterator[None]:
    """A worker in a thread, which looks for work without being woken."""
    place = open_workplace(settings, "one@test")
    over = threading.Event()

    def keep_working() -> None:
        while not over.is_set():
            if not work(place):
                over.wait(0.05)

    thread = threading.Thread(target=keep_working)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        place.database.dispose()


def test_a_labeled_folder_and_a_pool_give_an_answer_in_words(tmp_path: Path, broker_url: str) -> None:
    make_tiny_weights(tmp_path / "weights" / "default")
    write_phantoms(tmp_path / "labeled", 4, 902, LOOKS, lambda *_: None)
    write_phantoms(tmp_path / "unlabeled", 2, 903, LOOKS, lambda *_: None)
    settings = Settings(
        data_dir=tmp_path / "data", broker_url=broker_url, weights_dir=tmp_path / "weights", device="cpu"
    )
    with serving(settings) as served, worker(settings):
        url = str(served.client.base_url)
        run(["pool", "import", "default", str(tmp_path / "unlabeled" / "images"), "--url", url])
        options = ["--top-k", "1", "--preset", "paper", "--steps", "2", "--seeds", "1", "--backbone", "tiny"]
        out = tmp_path / "out"
        said = run(["evaluate", "--labeled", str(tmp_path / "labeled"), "--out", str(out), "--url", url, *options])
    assert "Your 2 labeled images alone reach a Dice of" in said
    assert "That is little to judge by" in said
    assert sorted(path.name for path in out.iterdir()) == ["report.csv", "report.json", "report.md", "report.png"]
    arms = json.loads((out / "report.json").read_text())["arms"]
    assert [arm["name"] for arm in arms] == ["real", "top 1 paper, real+synthetic"]


def run(arguments: list[str]) -> str:
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None:
        raise done.exception
    return done.stdout

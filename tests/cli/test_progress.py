"""cli/progress.py: what is told while something long goes on."""

import re
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from cli.phantoms import phantoms
from cli.progress import progress, say
from cli.split import split


def test_progress_is_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("queued") as show:
        for done in range(1000):
            show(done, 1000, f"sampling, {done} made anew")
        show(1000, 1000, "packaging")
        show(1000, 1000, "packaging")
    assert capsys.readouterr().err.splitlines() == ["sampling, 0 made anew 0/1000", "packaging 1000/1000"]


def test_what_takes_minutes_is_told_to_go_on_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("cli.progress.time.monotonic", lambda: now)
    with progress("queued") as show:
        for second in range(0, 200):
            now = float(second)
            show(second // 150, 6, "arm")
    lines = ["arm 0/6", "arm 0/6 for 1 min", "arm 0/6 for 2 min", "arm 1/6"]
    assert capsys.readouterr().err.splitlines() == lines


class Terminal(TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def written(self) -> str:
        assert isinstance(self.buffer, BytesIO)
        return self.buffer.getvalue().decode()

    def last(self) -> list[str]:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.written()).split("\r")[-1].split()

    def screen(self) -> list[str]:
        """The lines that are seen, when what rich wiped out is gone."""
        lines, row = [""], 0
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\n|\r|[^\x1b\n\r]+", self.written()):
            if part == "\x1b[1A":
                row -= 1
            elif part == "\x1b[2K":
                lines[row] = ""
            elif part == "\n":
                row += 1
                lines += [""] * (row == len(lines))
            elif part[0] not in "\x1b\r":
                lines[row] += part
        return lines


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 80) -> Terminal:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    return terminal


@pytest.mark.parametrize("columns", [60, 80])
def test_progress_on_a_narrow_terminal_loses_neither_label_nor_numbers(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    terminal = at_a_terminal(monkeypatch, columns)
    label = "vae step 12345 loss 0.0643 psnr 38.12 canal_retention 0.9712 12.3 images/s 29 min left"
    with progress("vae") as show:
        show(1000, 1000, label)
    assert terminal.last()[: len(label.split())] == label.split()
    assert terminal.last()[-4:] == ["1000/1000", "0:00:00", "remaining", "0:00:00"]


def test_progress_is_plain_lines_on_a_terminal_that_can_draw_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with progress("queued") as show:
        show(1, 1000, "sampling")
        assert terminal.written() == "sampling 1/1000\n"


def test_what_remains_of_few_long_steps_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    now = 0.0
    monkeypatch.setattr("rich.console.monotonic", lambda: now)
    with progress("queued") as show:
        for done in range(4):
            show(done, 9, "training")
            now += 3600
    assert terminal.last()[-4:] == ["3/9", "4:00:00", "remaining", "6:00:00"]


def test_what_is_said_in_the_midst_of_progress_stays_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    phantoms(tmp_path, count=4, seed=1, looks=None)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdout", terminal)
    split(tmp_path / "images", tmp_path / "split", labeled=None)
    assert [line for line in terminal.screen() if line.startswith("broken.png is left out: ")]


def test_what_is_said_in_the_midst_of_progress_goes_where_the_output_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_a_terminal(monkeypatch, columns=40)
    words = "a.png is left out: " + "a reason as long as a terminal is not wide"
    with progress("reading") as show:
        show(1, 2)
        say(words)
        show(2, 2)
    assert capsys.readouterr().out == f"{words}\n"

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cli.failure import Failure
from cli.supervisor import LARGEST_LOG_BYTES, Child, Supervisor
from tests.waiting import is_alive, until

SUPERVISE = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup, which a supervisor respects
from pathlib import Path
from cli.failure import Failure
from cli.supervisor import Child, Supervisor
folder = Path(sys.argv[1])
children = [
    Child(f"child-{i}", ["bash", "-c", code], folder / f"{i}.log", os.environ)
    for i, code in enumerate(sys.argv[2:])
]
try:
    Supervisor(children, (folder / "ready").exists, "ready").run()
except Failure as failure:
    sys.exit(str(failure))
"""


@pytest.fixture
def supervise(tmp_path: Path):
    """Start a supervisor of bash children in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*codes: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SUPERVISE, str(tmp_path), *codes]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def pids(path: Path, count: int = 1) -> list[int]:
    """The process ids that a child and its successors wrote, once there are `count`."""
    until(lambda: path.exists() and len(path.read_text().split()) >= count)
    return [int(line) for line in path.read_text().split()]


def until_ended(pid: int) -> None:
    until(lambda: not psutil.pid_exists(pid) or not is_alive(psutil.Process(pid)))


def test_a_killed_child_comes_back(supervise, tmp_path: Path) -> None:
    supervise(f"echo $$ >> {tmp_path}/pids; exec sleep 60")
    [first] = pids(tmp_path / "pids")
    os.kill(first, signal.SIGKILL)
    assert len(pids(tmp_path / "pids", 2)) == 2


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="this system has no real-time signals")
def test_a_child_that_a_real_time_signal_ended_comes_back_too(supervise, tmp_path: Path) -> None:
    supervise(f"echo $$ >> {tmp_path}/pids; exec sleep 60")
    [first] = pids(tmp_path / "pids")
    os.kill(first, signal.SIGRTMIN + 3)
    assert len(pids(tmp_path / "pids", 2)) == 2


def test_what_a_killed_child_had_started_ends_with_it(supervise, tmp_path: Path) -> None:
    supervise(f"sleep 60 & echo $! >> {tmp_path}/grandchild; echo $$ >> {tmp_path}/pids; wait")
    [child], [grandchild] = pids(tmp_path / "pids"), pids(tmp_path / "grandchild")
    os.kill(child, signal.SIGKILL)
    until_ended(grandchild)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_child_and_their_children(supervise, tmp_path: Path, number: signal.Signals) -> None:
    code = f"sleep 60 & echo $! >> {tmp_path}/pids; echo $$ >> {tmp_path}/pids; wait"
    process = supervise(code, code)
    found = pids(tmp_path / "pids", 4)
    process.send_signal(number)
    assert process.wait(30) == 0
    for pid in found:
        until_ended(pid)


def test_children_do_not_outlive_a_supervisor_that_was_killed(supervise, tmp_path: Path) -> None:
    process = supervise(f"echo $$ >> {tmp_path}/pids; exec sleep 60")
    [child] = pids(tmp_path / "pids")
    process.kill()
    until_ended(child)


def test_a_child_that_cannot_start_ends_everything_with_the_last_words_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.supervisor.TRIES_TO_START", 2)
    good = Child("good", ["sleep", "60"], tmp_path / "good.log", os.environ)
    bad = Child("bad", ["bash", "-c", "echo no such disk; exit 3"], tmp_path / "bad.log", os.environ)
    with pytest.raises(Failure, match=r"bad ended with status 3 2 times in a row(?s:.*)no such disk"):
        Supervisor([good, bad], lambda: False, "ready").run()
    assert good.process is not None
    assert good.process.returncode == -signal.SIGTERM


def test_a_child_that_dies_is_started_again_at_once_and_then_less_and_less_often(tmp_path: Path) -> None:
    child = Child("child", ["false"], tmp_path / "log", os.environ)
    for pause in (0, 2, 4, 8, 16, 30, 30, 30):
        child.start()
        assert child.process is not None
        child.process.wait()
        before = time.monotonic()
        assert child.reap() == 1
        assert before + pause <= child.due <= time.monotonic() + pause


def test_a_child_that_cannot_be_started_for_a_while_is_tried_again(supervise, tmp_path: Path) -> None:
    process = supervise(f"echo $$ >> {tmp_path}/pids; exec sleep 60")
    [first] = pids(tmp_path / "pids")
    (tmp_path / "ready").touch()
    assert process.stdout.readline() == "ready\n"
    (tmp_path / "0.log").unlink()
    (tmp_path / "0.log").mkdir()  # as a log for which there is no room
    os.kill(first, signal.SIGKILL)
    while "cannot be started" not in process.stderr.readline():
        assert process.poll() is None
    (tmp_path / "0.log").rmdir()
    assert len(pids(tmp_path / "pids", 2)) == 2


def test_who_reads_its_words_may_leave(supervise, tmp_path: Path) -> None:
    process = supervise(f"echo $$ >> {tmp_path}/pids; exec sleep 60")
    [first] = pids(tmp_path / "pids")
    process.stdout.close()
    process.stderr.close()
    (tmp_path / "ready").touch()
    for count in (2, 3):  # the first may come before it is seen to be ready
        os.kill(first, signal.SIGKILL)
        *_, first = pids(tmp_path / "pids", count)
    assert process.poll() is None


def test_a_process_whose_parent_ended_before_it_could_be_tied_to_it_ends(tmp_path: Path) -> None:
    code = """
import os, sys, time
from cli.children import die_with
parent = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == parent:
    time.sleep(0.01)
open(sys.argv[1], "w").write(str(os.getpid()))
die_with(parent)
time.sleep(60)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "pids")], check=True)
    [orphan] = pids(tmp_path / "pids")
    until_ended(orphan)


def test_a_childs_log_stays_small_while_it_runs(supervise, tmp_path: Path) -> None:
    size = LARGEST_LOG_BYTES + 1  # so that it is whole as soon as it is too large
    supervise(f"head -c {size} /dev/zero; until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo later; exec sleep 60")
    log, aside = tmp_path / "0.log", tmp_path / "0.log.1"
    until(lambda: aside.exists() and log.stat().st_size == 0)
    assert aside.stat().st_size == size
    (tmp_path / "go").touch()
    until(lambda: log.read_bytes() == b"later\n")


def test_it_says_once_that_it_is_ready(supervise, tmp_path: Path) -> None:
    process = supervise(f"echo $$ >> {tmp_path}/pids; exec sleep 60")
    pids(tmp_path / "pids")
    (tmp_path / "ready").touch()
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.terminate()
    assert process.communicate()[0] == ""

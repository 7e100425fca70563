"""Named points in a worker's and the API's work at which the process kills itself when it is told to.

The service's own code knows nothing of this: `install` wraps the functions that pass the points, in a process
started by `benchmarks.faults.process`. A point is armed by a file in the data folder; who reaches it takes the
file and dies, so that it happens once.
"""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

WORKER_POINTS = (
    "after the claim",
    "after a step's commit, before the wake-up",
)
SYNTHESIS_POINTS = (
    "while planning, before the commit",
    "while sampling",
    "before a sample's blob",
    "after a sample's blob",
    "before a sample's commit",
    "while packaging",
    "before the zip's blob",
    "after the zip's blob",
)
EVALUATION_POINTS = (
    "while training an arm",
    "after an arm's checkpoint",
    "before an arm's commit",
    "before the report's commit",
)
IMPORT_POINTS = (
    "while unpacking an archive",
    "before an unpacked archive's commit",
    "after a pool image's blob",
    "before an import's commit",
)
BLOBS = {  # after a blob with this in its key
    "after a sample's blob": "/samples/",
    "after an arm's checkpoint": ".checkpoint",
    "while unpacking an archive": "/uploads/",
    "after a pool image's blob": "/images/",
}
API_POINTS = ("after a job's blobs, before the commit", "between commit and reply")


def arm(data_dir: Path, point: str) -> None:
    """The next process that reaches the point dies there."""
    aside = data_dir / "fault.aside"
    aside.write_text(point)
    aside.replace(data_dir / "fault")


def disarm(data_dir: Path) -> bool:
    """Whether the point was still armed: nobody came by."""
    try:
        (data_dir / "fault").unlink()
    except FileNotFoundError:
        return False
    return True


def install_in_worker(data_dir: Path) -> None:
    from app import broker, evaluations, imports, jobs
    from app.blobs import Blobs
    from models.training.segmenter import SegmenterTraining
    from worker import packaging, sampling, tasks

    def at(point: str) -> None:
        _die_if_armed(data_dir, point)

    def of(part: str) -> Callable[..., bool]:
        return lambda _blobs, key, *_: part in key

    tasks._do = _before(tasks._do, lambda: at("after the claim"))
    broker.wake = _before(broker.wake, lambda: at("after a step's commit, before the wake-up"))
    jobs.plan_done = _after(jobs.plan_done, lambda: at("while planning, before the commit"))
    jobs.finish_samples = _after(jobs.finish_samples, lambda: at("before a sample's commit"))
    Blobs.put = _before(Blobs.put, lambda: at("before a sample's blob"), of("/samples/"))  # type: ignore[method-assign]
    for point, part in BLOBS.items():
        Blobs.put = _after(Blobs.put, partial(at, point), of(part))  # type: ignore[method-assign]
    Blobs.put_file = _before(Blobs.put_file, lambda: at("before the zip's blob"))  # type: ignore[method-assign]
    Blobs.put_file = _after(Blobs.put_file, lambda: at("after the zip's blob"))  # type: ignore[method-assign]
    packaging._entry = _before(packaging._entry, lambda: at("while packaging"), lambda name: "masks" in name)
    SegmenterTraining.advance = _before(  # type: ignore[method-assign]
        SegmenterTraining.advance, lambda: at("while training an arm"), lambda training: training.step > 4
    )
    evaluations.arm_done = _before(evaluations.arm_done, lambda: at("before an arm's commit"))
    evaluations.reported = _before(evaluations.reported, lambda: at("before the report's commit"))
    imports.unpacked = _after(imports.unpacked, lambda: at("before an unpacked archive's commit"))
    imports.imported = _after(imports.imported, lambda: at("before an import's commit"))
    synthesize = sampling.synthesize

    def synthesize_and_pass(*given: Any, should_stop: Callable[[], bool], **named: Any) -> Any:
        asked = 0

        def pass_by() -> bool:  # asked between the denoising steps
            nonlocal asked
            asked += 1
            if asked > 20:
                at("while sampling")
            return should_stop()

        return synthesize(*given, should_stop=pass_by, **named)

    sampling.synthesize = synthesize_and_pass


def install_in_api(data_dir: Path) -> None:
    from app import evaluations, imports, jobs
    from app.routes import accepted

    before, after = API_POINTS
    for module, name in ((jobs, "submit_synthesis"), (imports, "submit_import"), (evaluations, "submit_evaluation")):
        setattr(module, name, _after(getattr(module, name), lambda: _die_if_armed(data_dir, before)))
    accepted.job_answer = _before(accepted.job_answer, lambda: _die_if_armed(data_dir, after))


def _die_if_armed(data_dir: Path, point: str) -> None:
    file = data_dir / "fault"
    try:
        if file.read_text() != point:
            return
        file.rename(data_dir / f"fault.{os.getpid()}")  # one process alone
    except FileNotFoundError:
        return
    (data_dir / f"fault.{os.getpid()}").unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def _before(function: Any, pass_by: Callable[[], None], where: Callable[..., bool] = lambda *_: True) -> Any:
    def wrapped(*given: Any, **named: Any) -> Any:
        if where(*given):
            pass_by()
        return function(*given, **named)

    return wrapped


def _after(function: Any, pass_by: Callable[[], None], where: Callable[..., bool] = lambda *_: True) -> Any:
    def wrapped(*given: Any, **named: Any) -> Any:
        result = function(*given, **named)
        if where(*given):
            pass_by()
        return result

    return wrapped

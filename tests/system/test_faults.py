"""The short form of the soak (`python -m benchmarks.faults`): real processes, real signals, nothing lost."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from app import database, imports, pools
from app.blobs import Blobs
from app.settings import Settings
from benchmarks.faults.faults import FAULTS
from benchmarks.faults.leftovers import left_over, tidied
from benchmarks.faults.soak import soak, table
from benchmarks.faults.stack import running
from benchmarks.faults.work import SYNTHESIS

SHORT = (
    "kill -9 of a worker after a sample's blob",
    "kill -9 of the API in the middle of an upload",
    "broker wiped (FLUSHALL)",
    "cancelled at any moment",
)


def test_faults_cost_time_and_nothing_else(tmp_path: Path, weights_dir: Path) -> None:
    with running(tmp_path / "data", weights_dir, workers=1) as stack:
        tallies = soak(stack, SHORT, seed=5, say=print, kinds=[SYNTHESIS])
    assert not [words for tally in tallies.values() for words in tally.failures]
    assert {name for name, tally in tallies.items() if tally.trials} >= set(SHORT[:3]), table(tallies)


def test_the_short_form_is_part_of_the_long_one() -> None:
    assert set(SHORT) <= set(FAULTS)


CLOCKS = """
import datetime, sys, time
from pathlib import Path
from benchmarks.faults import clocks

folder, day, right = Path(sys.argv[1]), datetime.datetime, time.time()
clocks.install_for_all(folder, "api")
from app import jobs
clocks.install_for_the_service(folder, "api")
assert abs(time.time() - right) < 1800
clocks.set_clock(folder, "api", -clocks.HOUR)
assert time.time() < right - 1800 and time.time_ns() / 1e9 < right - 1800
assert jobs.datetime.now(datetime.UTC).timestamp() < right - 1800
assert isinstance(day.now(), jobs.datetime) and datetime.datetime is day
"""


def test_a_clock_is_set_in_the_services_modules_alone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", CLOCKS, str(tmp_path)], check=True)


def test_what_a_fault_leaves_is_noticed(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    database.migrate(settings.database())
    before = tidied(settings)
    Blobs(settings.blobs()).put("elsewhere/a", b"whatever the janitor does not know")
    db = database.connect(settings.database())
    with db.write() as session:
        pool = pools.create(session, "p")
        names = {"job_id": "1f", "pool": pool.name, "names": ["a.png"]}
        imports.submit_import(session, **names)
    db.dispose()
    found = left_over(settings, replace(before, blobs=frozenset({"pools/lost"})))
    assert found[:2] == ["blob elsewhere/a", "lost blob pools/lost"]
    assert {"+1 rows in jobs", "+1 rows in uploads", "+1 rows in steps"} <= set(found)

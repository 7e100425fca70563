from app.monitoring.figures import STEP_SECONDS, Figures


def test_nothing_is_counted_at_first() -> None:
    assert Figures().snapshot() == {"samples": 0, "steps": {}}


def test_a_step_is_in_every_bucket_whose_bound_it_keeps() -> None:
    figures = Figures()
    for seconds in (0.0, 1.0, 1.5, 300.0, 301.0):
        figures.step_ended("plan", seconds)
    counted = figures.snapshot()["steps"]["plan"]
    buckets = dict(counted["buckets"])
    assert len(buckets) == len(STEP_SECONDS) + 1
    assert (buckets["1.0"], buckets["3.0"], buckets["120.0"], buckets["300.0"], buckets["+Inf"]) == (2, 3, 3, 4, 5)
    assert counted["seconds"] == 603.5


def test_kinds_are_counted_apart() -> None:
    figures = Figures()
    figures.step_ended("plan", 1.0)
    figures.step_ended("sample", 2.0)
    figures.samples_made(4)
    snapshot = figures.snapshot()
    assert {kind: taken["seconds"] for kind, taken in snapshot["steps"].items()} == {"plan": 1.0, "sample": 2.0}
    assert snapshot["samples"] == 4

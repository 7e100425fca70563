"""The figures of GET /metrics: this process's counters, and what SQL has at the scrape of jobs and of workers."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import product
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database import clock
from app.queries import counts_by_status, live_workers, steps_to_do
from app.schemas import Kind, Status
from app.tables import Delivery, Job, Worker

KINDS: tuple[str, ...] = get_args(Kind)
OUTCOMES = ("delivered", "failed", "given_up")
STATUSES: tuple[str, ...] = get_args(Status)
# Refusals that are worth an alarm (docs/operations.md), with the status that each has.
ALARMING = {"unauthorized": 401, "queue-full": 429, "internal-error": 500, "unavailable": 503}


class Metrics:
    """One registry per application, so that two in one process never mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._refusals = Counter(
            "pansynth_refusals",
            "Requests answered with a problem, by its kind and status",
            ["reason", "status"],
            registry=self.registry,
        )
        self._accepted = Counter("pansynth_jobs_accepted", "Jobs accepted, by kind", ["kind"], registry=self.registry)
        self._webhooks = Counter(
            "pansynth_webhooks",
            "Attempts to deliver a webhook: delivered, failed (tried again later) or given_up",
            ["outcome"],
            registry=self.registry,
        )
        # Shown as 0 from the start, so that the first one is seen as a rise.
        for reason, status in ALARMING.items():
            self._refusals.labels(reason, status)
        for kind in KINDS:
            self._accepted.labels(kind)
        for outcome in OUTCOMES:
            self._webhooks.labels(outcome)

    def refused(self, reason: str, status: int) -> None:
        self._refusals.labels(reason, status).inc()

    def accepted(self, kind: str) -> None:
        self._accepted.labels(kind).inc()

    def webhook(self, outcome: str) -> None:
        self._webhooks.labels(outcome).inc()

    def text(self, session: Session) -> bytes:
        """The Prometheus text of everything."""
        return generate_latest(self.registry) + generate_latest(AtScrape(session))


class AtScrape(Collector):
    """What SQL has now, the same from every API."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def collect(self) -> Iterable[Metric]:
        now = clock(self.session)
        yield from of_jobs(self.session, now)
        yield from of_workers(live_workers(self.session, now))


def of_jobs(session: Session, now: datetime) -> Iterator[Metric]:
    by_status = GaugeMetricFamily("pansynth_jobs", "Jobs by kind and status", labels=["kind", "status"])
    depth = GaugeMetricFamily("pansynth_queue_depth", "Jobs that wait, by kind", labels=["kind"])
    counts = counts_by_status(session)
    for kind, status in product(KINDS, STATUSES):
        by_status.add_metric([kind, status], counts.get((kind, status), 0))
    for kind in KINDS:
        depth.add_metric([kind], counts.get((kind, "queued"), 0))
    yield by_status
    yield depth
    oldest = session.scalar(select(func.min(Job.created_at)).where(Job.status == "queued"))
    age = max(0.0, (now - oldest).total_seconds()) if oldest else 0.0
    yield GaugeMetricFamily("pansynth_oldest_queued_seconds", "Age of the oldest job that waits", value=age)
    yield GaugeMetricFamily(
        "pansynth_steps_to_do", "Steps of 10 to 30 s that a worker does or could do now", value=steps_to_do(session)
    )
    query = select(func.count()).where(Delivery.status == "pending", Delivery.last_error.is_not(None))
    failing = session.scalar(query) or 0
    yield GaugeMetricFamily("pansynth_webhooks_failing", "Webhooks that failed and will be tried again", value=failing)


def of_workers(workers: Sequence[Worker]) -> list[Metric]:
    """What the live workers said with their last sign of life; their counters begin anew with them."""
    samples = CounterMetricFamily("pansynth_samples", "Samples that a worker has made", labels=["worker"])
    steps = HistogramMetricFamily(
        "pansynth_step_seconds", "Time that a worker took for its steps, by their kind", labels=["worker", "kind"]
    )
    used = GaugeMetricFamily("pansynth_gpu_memory_used_bytes", "Of a worker's GPU, by all", labels=["worker"])
    total = GaugeMetricFamily("pansynth_gpu_memory_total_bytes", "Of a worker's GPU", labels=["worker"])
    for worker in workers:
        figures = worker.figures or {}  # None: it is of a version that counted nothing
        samples.add_metric([worker.id], figures.get("samples", 0))
        for kind, taken in figures.get("steps", {}).items():
            steps.add_metric([worker.id, kind], taken["buckets"], taken["seconds"])
        if gpu := figures.get("gpu"):
            used.add_metric([worker.id], gpu["used"])
            total.add_metric([worker.id], gpu["total"])
    alive = GaugeMetricFamily("pansynth_workers_alive", "Live workers", value=len(workers))
    return [alive, samples, steps, used, total]

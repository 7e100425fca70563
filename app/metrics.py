"""The figures of GET /metrics: this process's counters, and the jobs as SQL has them at the scrape."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import product

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.queries import counts_by_status, live_workers
from app.tables import Job, Sample

KINDS = ("synthesis", "pool_import", "evaluation")
STATUSES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")


class Metrics:
    """One registry per application, so that two in one process never mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._refusals = Counter(
            "pansynth_refusals",
            "Requests answered with a problem, by its kind",
            ["reason"],
            registry=self.registry,
        )
        self._accepted = Counter("pansynth_jobs_accepted", "Jobs accepted, by kind", ["kind"], registry=self.registry)

    def refused(self, reason: str) -> None:
        self._refusals.labels(reason).inc()

    def accepted(self, kind: str) -> None:
        self._accepted.labels(kind).inc()

    def text(self, session: Session) -> bytes:
        """The Prometheus text of everything."""
        state = CollectorRegistry()
        state.register(JobState(session))
        return generate_latest(self.registry) + generate_latest(state)


class JobState(Collector):
    def __init__(self, session: Session) -> None:
        self.session = session

    def describe(self) -> Iterable[Metric]:
        return []  # nothing is asked of the database before the scrape itself

    def collect(self) -> Iterable[Metric]:
        by_status = GaugeMetricFamily("pansynth_jobs", "Jobs by kind and status", labels=["kind", "status"])
        counts = counts_by_status(self.session)
        for kind, status in product(KINDS, STATUSES):
            by_status.add_metric([kind, status], counts.get((kind, status), 0))
        yield by_status
        waiting = sum(counts.get((kind, "queued"), 0) for kind in KINDS)
        yield GaugeMetricFamily("pansynth_queue_depth", "Jobs that wait", value=waiting)
        yield GaugeMetricFamily(
            "pansynth_oldest_queued_seconds",
            "Age of the oldest job that waits",
            value=self.oldest_queued_seconds(),
        )
        yield GaugeMetricFamily("pansynth_samples_stored", "Samples made and kept", value=self.samples())
        yield GaugeMetricFamily(
            "pansynth_workers_alive", "Live workers", value=len(live_workers(self.session, datetime.now(UTC)))
        )

    def oldest_queued_seconds(self) -> float:
        oldest = self.session.scalar(select(func.min(Job.created_at)).where(Job.status == "queued"))
        return max(0.0, (datetime.now(UTC) - oldest).total_seconds()) if oldest else 0.0

    def samples(self) -> int:
        return self.session.scalar(select(func.count()).where(Sample.image_sha256.is_not(None))) or 0

"""The outbox of webhooks: a delivery for every job that asked for one, due as soon as the job has ended.

Its row is written with the job, and the job's own status makes it due. So it is due by the very transaction that ends
the job, whichever process does that, and cannot be lost between the two. `app.webhooks.deliveries` sends what is due.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.database import clock
from app.schemas import job_links
from app.tables import Delivery, Job

CLAIM_SECONDS = 60.0  # longer than any attempt takes: an API that has not reported by then must have died
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 4 * 3600.0
MAX_ATTEMPTS = 14  # with these pauses about a day
EACH_AT_ONCE = 4  # attempts of a claimer at one receiver, which may be silent


@dataclass(frozen=True)
class Due:
    """A delivery to attempt, and the proof that it is the claimer's."""

    job_id: str
    attempt: int  # 1 is the first
    url: str
    message_id: str  # the same at every attempt: receivers know by it what they have had
    body: bytes

    @property
    def receiver(self) -> str:
        """Scheme, host and port as the client wrote them: what comes after them differs from job to job."""
        return "/".join(self.url.lower().replace("?", "/").split("/")[:3])


def order(session: Session, job: Job, url: str | None) -> None:
    """Order a webhook, with a job that is being submitted, to a URL that `webhook_hosts` allows; None: none."""
    if url is not None:
        job.webhook = url
        session.add(Delivery(job_id=job.id, status="pending", due_at=clock(session)))


def claim_due(session: Session, *, now: datetime, limit: int, under_way: Sequence[str] = ()) -> list[Due]:
    """Take on the deliveries that are due; each goes to one claimer.

    Those never attempted come first, and of these receivers take turns, or one that is down or silent would hold up the
    others; then the longest waiting. under_way: the receivers of the claimer's other attempts, of which none gets more
    than EACH_AT_ONCE.
    """
    again = Delivery.attempts > 0
    turn = func.row_number().over(partition_by=(again, Job.webhook), order_by=(Delivery.due_at, Delivery.job_id))
    count = Counter(under_way)
    busy = [receiver for receiver in count if count[receiver] >= EACH_AT_ONCE]
    address = func.lower(Job.webhook)
    query = (
        select(Delivery.attempts, Job)
        .join(Job, Job.id == Delivery.job_id)
        .where(Delivery.status == "pending", Delivery.due_at <= now, Job.finished_at.is_not(None))
        .where(*(~address.regexp_match(f"^{re.escape(receiver)}([/?]|$)") for receiver in busy))
        .order_by(again, turn, Delivery.due_at, Delivery.job_id)
        .limit(limit)
    )
    claimed = []
    for attempts, job in session.execute(query).all():
        values = {"attempts": attempts + 1, "due_at": now + timedelta(seconds=CLAIM_SECONDS)}
        due = Due(job.id, attempts + 1, job.webhook or "", f"msg_{job.id}", message(job))
        if count[due.receiver] < EACH_AT_ONCE and _free(session, job.id) and _change(session, job.id, attempts, values):
            count[due.receiver] += 1
            claimed.append(due)
    return claimed


def delivered(session: Session, due: Due) -> str:
    """The receiver has it."""
    _change(session, due.job_id, due.attempt, {"status": "delivered", "last_error": None})
    return "delivered"


def not_delivered(
    session: Session, due: Due, reason: str, *, now: datetime, lasting: bool, asked_seconds: float = 0.0
) -> str:
    """An attempt failed: try again later, longer each time; where that is of no use, give up. -> what was done.

    asked_seconds: the pause that the receiver asks for. It lengthens ours, up to the longest.
    """
    if lasting or due.attempt >= MAX_ATTEMPTS:
        _change(session, due.job_id, due.attempt, {"status": "given_up", "last_error": reason})
        return "given_up"
    pause = max(pause_seconds(due.attempt), min(asked_seconds, LONGEST_PAUSE_SECONDS))
    due_at = now + timedelta(seconds=pause * random.uniform(1.0, 1.2))
    _change(session, due.job_id, due.attempt, {"due_at": due_at, "last_error": reason})
    return "failed"


def pause_seconds(attempt: int) -> float:
    """After the attempt of this number, before jitter: 5, 15, 45 ... up to 4 hours."""
    return min(FIRST_PAUSE_SECONDS * 3.0 ** (attempt - 1), LONGEST_PAUSE_SECONDS)


def message(job: Job) -> bytes:
    """What the receiver is told of an ended job: where to look, and nothing that a client named."""
    status, ended_at = job.status, job.finished_at
    data = {"id": job.id, "kind": job.kind, "status": status, "links": job_links(job)}
    content = {"type": f"job.{status}", "timestamp": ended_at and ended_at.isoformat(), "data": data}
    return json.dumps(content, separators=(",", ":")).encode()


def _free(session: Session, job_id: str) -> bool:
    """Lock the delivery, unless another claimer has: two that see them in another order would wait for each other."""
    row = select(Delivery.job_id).where(Delivery.job_id == job_id).with_for_update(skip_locked=True)
    return session.scalar(row) is not None


def _change(session: Session, job_id: str, attempts: int, values: dict[str, Any]) -> bool:
    """Only if nobody else has attempted the delivery since."""
    guarded = (
        update(Delivery)
        .where(Delivery.job_id == job_id, Delivery.status == "pending", Delivery.attempts == attempts)
        .values(values)
        .returning(Delivery.job_id)
    )
    return session.scalar(guarded) is not None

"""The API's second background task: sends the webhooks that are due, signed after Standard Webhooks.

Safe to run in many processes at once. A delivery may reach its receiver twice (an API died between the answer and
writing it down), with the same `webhook-id`; see https://www.standardwebhooks.com.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
from anyio import to_thread

from app.database import clock
from app.monitoring import logs
from app.service import Service
from app.settings import webhook_key
from app.sweeper import keep_doing
from app.webhooks import outbox
from app.webhooks.hosts import refusal
from app.webhooks.outbox import Due

log = logging.getLogger(__name__)

AT_ONCE = 16
LOOK_SECONDS = 1.0  # after which those that have ended make room for others
CONNECT_SECONDS = 5.0
ATTEMPT_SECONDS = 15.0  # from the first look at DNS to the status line
GONE = 410  # by the standard: the receiver wants no more of this


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed; `lasting`: no further one can succeed."""

    reason: str
    lasting: bool = False
    asked_seconds: float = 0.0  # for which the receiver wants to be left alone


async def keep_delivering(service: Service) -> None:
    """Until cancelled: send what is due; wait outages of the database out."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # below that it logs whole addresses, which may hold a token
    # A redirect would lead where nobody looked; a slow receiver must not keep the others waiting.
    timeout = httpx.Timeout(ATTEMPT_SECONDS, connect=CONNECT_SECONDS)
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))  # tenants share a receiver's host, and this client
    async with httpx.AsyncClient(follow_redirects=False, timeout=timeout, cookies=no_cookies) as client:
        await keep_doing("sending webhooks", lambda: deliver_due(service, client))


async def deliver_due(service: Service, client: httpx.AsyncClient) -> None:
    """Attempt the deliveries that are due, AT_ONCE together; one to a silent receiver holds up no other."""
    under_way: dict[asyncio.Task[None], str] = {}  # with the receiver of each
    while True:
        if (room := AT_ONCE - len(under_way)) > 0:
            claimed = await to_thread.run_sync(claim, service, room, [*under_way.values()])
            under_way |= {asyncio.create_task(deliver(service, client, due)): due.receiver for due in claimed}
        if not under_way:
            return
        done, _ = await asyncio.wait(under_way, timeout=LOOK_SECONDS)
        for task in done:
            del under_way[task]
        await asyncio.gather(*done)  # which raises what they have raised


def claim(service: Service, limit: int, under_way: Sequence[str]) -> list[Due]:
    with service.database.write() as session:
        return outbox.claim_due(session, now=clock(session), limit=limit, under_way=under_way)


async def deliver(service: Service, client: httpx.AsyncClient, due: Due) -> None:
    settings = service.settings
    refused = refusal(due.url, settings.webhook_hosts)  # the operator may have changed them since it was accepted
    if refused is not None:
        failure: Failure | None = Failure(refused, lasting=True)
    else:
        failure = await attempt(client, due, webhook_key(settings.webhook_secret))
    outcome = await to_thread.run_sync(write_down, service, due, failure)
    service.metrics.webhook(outcome)
    with logs.about(due.job_id):
        reason = failure.reason if failure else outcome
        log.info("webhook of job %s, attempt %d: %s", due.job_id, due.attempt, reason)


def write_down(service: Service, due: Due, failure: Failure | None) -> str:
    with service.database.write() as session:
        if failure is None:
            return outbox.delivered(session, due)
        now, asked = clock(session), failure.asked_seconds
        return outbox.not_delivered(session, due, failure.reason, now=now, lasting=failure.lasting, asked_seconds=asked)


async def attempt(client: httpx.AsyncClient, due: Due, key: bytes) -> Failure | None:
    """Post the message once; of the answer only the head is read. None: the receiver has it."""
    headers = signed(key, due.message_id, int(time.time()), due.body)
    try:
        async with asyncio.timeout(ATTEMPT_SECONDS):
            async with client.stream("POST", due.url, content=due.body, headers=headers) as answer:
                status, retry_after = answer.status_code, answer.headers.get("retry-after", "")
    except TimeoutError:
        return Failure(f"no answer within {ATTEMPT_SECONDS:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last of a host that no IDNA encodes
        if client.is_closed:
            return Failure("pansynth was stopped before an answer came")
        return Failure(f"{type(error).__name__}: {error}"[:200])
    if 200 <= status < 300:
        return None
    pause = pause_asked_for(retry_after)
    return Failure(f"the receiver answered {status}", lasting=status == GONE, asked_seconds=pause)


def pause_asked_for(retry_after: str) -> float:
    """Seconds: RFC 9110 lets a receiver write a number of them, or a date. 0 where it asks for none."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):  # no date, or one without a zone
        return 0.0


def signed(key: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message. timestamp: seconds since 1970, of this attempt."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return {
        "content-type": "application/json",
        "user-agent": "pansynth",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }

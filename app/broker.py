"""The queue of wake-ups. A message carries a job's id and no work: the database says what there is to do."""

import logging
from collections.abc import Sequence

from celery import Celery
from kombu.exceptions import OperationalError

from app.settings import Settings

log = logging.getLogger(__name__)

TASK = "pansynth.work"
QUEUE = "pansynth"
# A step takes 10 to 30 s, packaging a million samples from a bucket that answers in 30 ms half an hour. One that takes
# this long hangs in a way that `worker.lease` does not see, and its process is killed.
TASK_SECONDS = 3600


def celery_app(settings: Settings) -> Celery:
    """The Celery application that both ends share; it connects to nothing yet."""
    app = Celery("pansynth", broker=settings.broker())
    app.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_time_limit=TASK_SECONDS,
        worker_prefetch_multiplier=1,
        worker_proc_alive_timeout=120.0,  # a process imports torch before it says that it is up
        worker_soft_shutdown_timeout=5.0,
        worker_enable_soft_shutdown_on_idle=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Celery's 100 are 50 minutes, after which a worker would end
        broker_transport_options={
            "visibility_timeout": 2 * TASK_SECONDS,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "max_retries": 1,  # the sweeper tries again; a request does not wait for it
            "interval_start": 0,
        },
    )
    return app


def wake(celery: Celery, job_id: str, count: int = 1) -> None:
    """Send `count` wake-ups, after the commit of what they announce. Where the broker is away they are lost, which does
    no harm: the job is durable, and `top_up` makes up for them."""
    try:
        _send(celery, [job_id] * count)
    except OperationalError as error:
        log.warning("job %s waits for the broker to come back: %s", job_id, error)


def waiting(celery: Celery) -> int:
    """Wake-ups in the queue that no worker has taken yet."""
    with celery.connection_for_write() as connection:
        return int(connection.default_channel._size(QUEUE))


def top_up(celery: Celery, job_ids: Sequence[str]) -> int:
    """Send the wake-ups that the queue lacks for these claimable steps, one id each, as of `jobs.sweep`.

    Any wake-up serves any step, so only their number counts: a busy fleet's queue does not grow by sweeping.
    Returns how many were sent. Raises an OperationalError of Kombu where the broker is away.
    """
    missing = job_ids[waiting(celery) :] if job_ids else []
    _send(celery, missing)
    return len(missing)


def _send(celery: Celery, job_ids: Sequence[str]) -> None:
    for job_id in job_ids:
        celery.send_task(TASK, args=[job_id], retry=False)


def ping(celery: Celery) -> None:
    """Raise (an OperationalError of Kombu) unless the broker answers within seconds."""
    with celery.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=3, errback=None)

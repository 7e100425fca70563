"""The application of `celery -A worker.celery:app worker --pool prefork -c 1 -Q pansynth -n NAME@%h`.

Nothing heavy is loaded here: the parent process forks the one that works, and CUDA does not survive a fork.
Celery's warm shutdown waits for the step; the working process is told of it and hands the step back.
"""

import gc
import logging
import os
import signal
import sys
from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue
from typing import Any

from celery import signals

from app import broker
from app.monitoring import logs
from app.settings import Settings

settings = Settings()
app = broker.celery_app(settings)
log = logging.getLogger(__name__)
told_to_end = RawValue(c_bool, False)  # in memory that the forked process shares


def remember_name(sender: str, **_: Any) -> None:
    """In the parent: NAME@host, which names the worker's process in the database."""
    app.conf.pansynth_worker = sender


def tell_to_end(**_: Any) -> None:
    """In the parent, at a signal to stop."""
    told_to_end.value = True


def write_logs(**_: Any) -> None:
    """Celery then leaves the loggers alone."""
    logs.write(settings.log_format)
    if settings.log_format == "json":
        sys.__stdout__ = None  # type: ignore[misc]  # past all loggers Celery says there, in plain text, that it ends


def say_end(**_: Any) -> None:
    log.info("this worker ends")


def begin(**_: Any) -> None:
    """In the forked process, before its first task. Celery would ignore what this raises."""
    try:
        open_stores()
    except Exception as error:
        from sqlalchemy.exc import SQLAlchemyError

        # Of a GPU, a folder or a database that is not there the words tell all.
        told = isinstance(error, (RuntimeError, OSError, SQLAlchemyError))
        log.error("this worker cannot begin: %s", str(error).partition("\n")[0], exc_info=not told)
        os.kill(os.getppid(), signal.SIGQUIT)  # SIGTERM would be an orderly end, with status 0


def open_stores() -> None:
    """Open the stores, free an earlier process's leases, show signs of life."""
    gc.disable()  # it would go through the libraries again and again while they are loaded: a seventh of the start
    from worker.devices import choose_device, use_device

    use_device(choose_device(settings.device))  # a wrong one is told before the largest libraries are loaded
    from worker.cache import remove_unused
    from worker.heartbeat import Heartbeat
    from worker.tasks import release_leases
    from worker.workplace import open_workplace

    gc.freeze()  # nor does it need to later: they stay
    gc.enable()

    place = open_workplace(settings, app.conf.pansynth_worker, lambda: told_to_end.value)
    app.conf.pansynth_place = place
    release_leases(place)
    remove_unused(place.cache)
    app.conf.pansynth_heartbeat = Heartbeat(place).start()
    log.info("this worker is ready, on %s", place.networks.device)  # Celery says so itself, seconds too early


def end(**_: Any) -> None:
    if place := app.conf.get("pansynth_place"):
        place.decoders.close()
    if heartbeat := app.conf.get("pansynth_heartbeat"):
        heartbeat.stop()


def work(_job_id: str) -> None:
    """A wake-up; the job's id is for the log alone."""
    from worker.tasks import work as take_a_step

    take_a_step(app.conf.pansynth_place)


signals.setup_logging.connect(write_logs)
signals.celeryd_init.connect(remember_name)
signals.worker_shutting_down.connect(tell_to_end)
signals.worker_shutdown.connect(say_end)
signals.worker_process_init.connect(begin)
signals.worker_process_shutdown.connect(end)
app.task(name=broker.TASK)(work)

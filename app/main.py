"""The HTTP application. `create_app` builds it; nothing happens at import."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version

from anyio import to_thread
from fastapi import Depends, FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.access.audit import Audit
from app.openapi import PROBLEM, complete, operation_id
from app.routes import access, evaluations, health, jobs, models, page, pools, synthesis
from app.routes.parameters import each_given_once
from app.service import Service, by_method, make_service
from app.settings import Settings
from app.sweeper import keep_sweeping, prepare
from app.uploads.bodies import DrainUnreadBody, LimitSmallBodies
from app.webhooks.deliveries import keep_delivering

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2  # after which one that cannot begin yet looks whether it is told to stop

DESCRIPTION = (
    "Label-true synthetic augmentation of panoramic dental radiographs. Import unlabeled images into a pool, "
    "post labeled guides, and download a dataset of synthetic images whose masks are true."
)


def create_app(settings: Settings) -> FastAPI:
    """The API over the stores that the settings name."""
    app = FastAPI(
        title="pansynth",
        version=version("pansynth"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere; ours is in routes.page
        redoc_url=None,
        redirect_slashes=False,  # to http:// behind a proxy with TLS; and a POST that is redirected looks as if done
        responses={"default": PROBLEM},
        generate_unique_id_function=operation_id,
        dependencies=[Depends(each_given_once)],
    )
    app.state.service = make_service(settings)
    app.state.is_stopping = lambda: False  # the server's to say
    app.state.readiness = None  # the look under way, for all who ask: of a store that hangs it takes a thread for 40 s
    problems.install(app)
    for room in (pools, synthesis, evaluations, jobs, models):
        app.include_router(room.router, dependencies=[Depends(by_method)])
    for room in (access, health, page):  # they say themselves who may
        app.include_router(room.router)
    complete(app, settings.api_keys_required)
    app.add_middleware(Audit)
    app.add_middleware(LimitSmallBodies)
    app.add_middleware(DrainUnreadBody)
    app.add_middleware(problems.AnswerStopped)
    app.add_middleware(SecurityHeaders)
    return app


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    prepared = await try_to_prepare(service, app.state.is_stopping)
    tasks = [asyncio.create_task(keep_sweeping(service, prepared))]
    if service.settings.webhook_hosts:
        tasks.append(asyncio.create_task(keep_delivering(service)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await to_thread.run_sync(service.decoders.close)
        service.celery.close()
        service.database.dispose()


async def try_to_prepare(service: Service, is_stopping: Callable[[], bool]) -> bool:
    """False if the database is away: the API starts all the same, answers 503, and tries again.

    Or if it is told to stop: another process's migration, or a transaction on SQLite, may take any time.
    """
    preparing = asyncio.ensure_future(to_thread.run_sync(prepare, service, abandon_on_cancel=True))
    while not preparing.done() and not is_stopping():
        await asyncio.wait([preparing], timeout=LOOK_SECONDS)
    if preparing.cancel():  # what its thread has done is undone with its connection
        return False
    if (error := preparing.exception()) is not None:
        log.warning("the database cannot be prepared yet: %r", error)
    return error is None


class SecurityHeaders:
    """ASGI middleware: no page of another origin may frame, sniff or load what is served here."""

    HEADERS = (
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.HEADERS:
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)

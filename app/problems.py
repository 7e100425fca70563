"""Every error the service answers with: RFC 9457 problem details, made in this one place."""

import asyncio
import errno
import logging
import os
import re
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from obstore.exceptions import BaseError as BlobError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import database, errors

log = logging.getLogger(__name__)

MAX_SHOWN = 60  # characters of what a client sent, in an answer
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# As the system says it through all libraries, and SQLite in words of its own.
NO_ROOM_WORDS = (*map(os.strerror, NO_ROOM), "disk is full")


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field: the value and the remedy, in words for the user."""

    field: str
    detail: str


class Problem(Exception):
    """An answer other than success. `kind` is the last part of the problem's type, stable for programs."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        title: str | None = None,
        fields: Sequence[FieldError] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.title = title or kind.replace("-", " ").capitalize()
        self.fields = tuple(fields)
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": f"urn:pansynth:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.fields:
            body["errors"] = [{"field": error.field, "detail": error.detail} for error in self.fields]
        return body


def invalid(fields: Sequence[FieldError]) -> Problem:
    """422 that names every wrong field at once; one that the client named at length, by its beginning."""
    fields = [FieldError(shown(error.field), error.detail) for error in fields]
    detail = " ".join(f"{error.field}: {error.detail}." for error in fields)
    return Problem(422, "invalid-input", detail, title="Some fields are not as they should be", fields=fields)


def given_again(given: Mapping[str, Sequence[str]]) -> list[FieldError]:
    """What has several values and may have one: by name, all that were given."""
    return [
        FieldError(name, f"is given {len(values)} times; give it once")
        for name, values in given.items()
        if len(values) > 1
    ]


def wrong_media_type(wanted: str, given: str) -> Problem:
    detail = f"send the body as {wanted}, not as {shown(given) or 'a body without a type'}"
    return Problem(415, "unsupported-media-type", detail, fields=[FieldError("Content-Type", detail)])


def unavailable(detail: str, fields: Sequence[FieldError] = ()) -> Problem:
    """503 for a part of the service that is away; the client may try again soon."""
    return Problem(503, "unavailable", detail, fields=fields, headers={"Retry-After": str(errors.RETRY_SECONDS)})


def answer(request: Request, problem: Problem) -> Response:
    """The problem as a request's answer, counted as a refusal."""
    request.app.state.service.metrics.refused(problem.kind, problem.status)
    return as_response(problem)


def as_response(problem: Problem) -> Response:
    return JSONResponse(problem.body(), problem.status, headers=problem.headers, media_type="application/problem+json")


# Its status, its kind and, where a field is to blame, which.
DOMAIN_ERRORS: dict[type[errors.PansynthError], tuple[int, str, *tuple[str, ...]]] = {
    errors.JobNotFound: (404, "job-not-found"),
    errors.JobRunning: (409, "job-running"),
    errors.JobInUse: (409, "job-in-use"),
    errors.JobEnded: (409, "job-ended"),
    errors.PoolNotFound: (404, "pool-not-found"),
    errors.PoolExists: (409, "pool-exists"),
    errors.PoolInUse: (409, "pool-in-use"),
    errors.PoolTooSmall: (422, "pool-too-small", "top_k"),
    errors.ImageNotFound: (404, "image-not-found"),
    errors.SampleNotFound: (404, "sample-not-found"),
    errors.NotFinished: (422, "not-finished", "synthesis"),
    errors.CroppedGuides: (422, "cropped-guides", "synthesis"),
    errors.LeakingTestImage: (422, "leaking-test-image", "test_image"),
    errors.QueueFull: (429, "queue-full"),
    errors.LimitReached: (429, "limit-reached"),
    errors.IdempotencyConflict: (422, "idempotency-conflict", "Idempotency-Key"),
    errors.BadCursor: (422, "bad-cursor", "cursor"),
    errors.BlobMissing: (404, "blob-missing"),
    errors.DecoderAway: (503, "decoder-away"),
}

STORES: dict[type[Exception], str] = {
    **dict.fromkeys(database.AWAY, "the database"),
    BlobError: "the blob store",
}

PHRASES = {413: "Request Entity Too Large"}  # Python 3.13 words it differently, and a problem's kind must not change


def from_domain(error: errors.PansynthError) -> Problem:
    status, kind, *names = DOMAIN_ERRORS.get(type(error), (500, "internal-error"))
    fields = [FieldError(name, str(error)) for name in names]
    headers = {} if error.retry_seconds is None else {"Retry-After": str(error.retry_seconds)}
    return Problem(status, kind, str(error), fields=fields, headers=headers)


def from_validation(request: Request, error: RequestValidationError) -> Problem:
    """FastAPI's own validation of paths, queries and JSON bodies, in our form."""
    for item in error.errors():
        if item["loc"][0] == "path":  # a number is asked for, so anything else is unknown
            return Problem(
                404, "not-found", f"{item['loc'][1]} {shortened(item['input'])} is unknown: it is not a number"
            )
        if item["loc"] == ("body",) and isinstance(item["input"], bytes):  # only what says so is read as JSON
            return wrong_media_type("application/json", request.headers.get("content-type", ""))
    return invalid([wrong_field(item) for item in error.errors()])


def wrong_field(item: Mapping[str, Any]) -> FieldError:
    if item["type"] == "json_invalid":
        return FieldError("body", f"is not JSON: {item['ctx']['error']}")
    if item["loc"] == ("body",):
        if item["type"] == "string_unicode":
            return FieldError("body", f"has a field whose name is no text: {shortened(item['input'])}; leave it out")
        return FieldError("body", "should be a JSON object")
    where = ".".join(str(part) for part in item["loc"][1:])
    return FieldError(where, in_words(item, "is no field of this request; leave it out"))


def from_http(request: Request, error: HTTPException) -> Problem:
    phrase = PHRASES.get(error.status_code) or HTTPStatus(error.status_code).phrase
    headers = dict(error.headers or {})
    if error.status_code == 405:  # the framework names the methods of one route, not all of the address
        headers["Allow"] = allowed_methods(request, headers.get("Allow", ""))
    details = {
        # The framework tells no more.
        400: "the body is not JSON in UTF-8, is nested too deeply or has a number of thousands of digits",
        404: "there is nothing at this address; /docs lists what there is",
        405: f"this method is not allowed here; allowed: {headers.get('Allow')}",
    }
    detail = details.get(error.status_code, str(error.detail))
    kind = phrase.lower().replace(" ", "-").replace("'", "")
    return Problem(error.status_code, kind, detail, headers=headers)


def allowed_methods(request: Request, named: str) -> str:
    """Every method that a route has at the request's address: what the framework named, and the documented ones."""
    found = set(named.split(", "))
    for operation, path_item in request.app.openapi()["paths"].items():
        parts = ["[^/]+" if part.startswith("{") else re.escape(part) for part in operation.split("/")]
        if re.fullmatch("/".join(parts), request.url.path):
            found.update(method.upper() for method in path_item)
    if "GET" in found:
        found.add("HEAD")
    return ", ".join(sorted(found))


def in_words(item: Mapping[str, Any], unknown: str) -> str:
    """What is wrong with a field, of an error of Pydantic's; `unknown` is said of a field that there is not."""
    known = {"missing": "is missing", "extra_forbidden": unknown}
    return known.get(item["type"]) or f"{plain(item['msg'])}; got {shortened(item['input'])}"


def plain(message: str) -> str:
    """Pydantic's wording without its opening words: 'Input should be ...' -> 'should be ...'."""
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


def shown(text: str) -> str:
    """A text of the client's, cut where it is long."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def shortened(value: object) -> str:
    """The same of any value, as Python writes it."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"


def install(app: FastAPI) -> None:
    """Route every exception to a problem."""
    app.add_exception_handler(Problem, answering(lambda _, problem: problem))
    app.add_exception_handler(errors.PansynthError, answering(lambda _, error: from_domain(error)))
    app.add_exception_handler(RequestValidationError, answering(from_validation))
    app.add_exception_handler(HTTPException, answering(from_http))
    for kind, store in STORES.items():
        app.add_exception_handler(kind, answering(partial(away, store)))
    app.add_exception_handler(OSError, answering(from_system))
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_middleware(AnswerMistakes)


def answering(problem_of: Callable[[Request, Any], Problem]) -> Callable[[Request, Exception], Awaitable[Response]]:
    """The handler that answers with the problem made of an exception."""

    async def handle(request: Request, error: Exception) -> Response:
        return answer(request, problem_of(request, error))

    return handle


async def on_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; this only keeps the log free of a traceback


def away(store: str, _request: Request, error: Exception) -> Problem:
    log.error("%s did not answer: %s", store, error)
    if any(words in str(error) for words in NO_ROOM_WORDS):
        return no_room(store)
    return unavailable(f"{store} does not answer; try again in a few seconds")


def from_system(request: Request, error: OSError) -> Problem:
    if error.errno not in NO_ROOM:
        return mistake(request, error)
    log.error("no room for an upload's temporary file in %s: %s", tempfile.gettempdir(), error)
    return no_room("the folder of uploads under way")


def no_room(where: str) -> Problem:
    return unavailable(f"{where} has no room for this now; try again later or send less")


def mistake(request: Request, error: Exception) -> Problem:
    log.error("unexpected error in %s %s", request.method, request.url.path, exc_info=error)
    return Problem(500, "internal-error", "the service made a mistake; its log says more")


class Noted:
    """A `send` that knows whether an answer has begun, after which there cannot be another."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


class AnswerMistakes:
    """ASGI middleware, the innermost: what nobody foresaw is answered as any problem is.

    Starlette's own handler for `Exception` stands outside all middleware, so its answer would lack their headers, and
    it closes the connection without saying so.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        noted = Noted(send)
        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            if noted.begun or scope["type"] != "http":
                raise
            request = Request(scope)
            await answer(request, mistake(request, error))(scope, receive, send)


class AnswerStopped:
    """ASGI middleware: a request that the server cuts short, because it stops, is told to come again.

    The server itself would answer 500, as of an error that stays, with a traceback in the log. What has begun breaks
    off.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        noted = Noted(send)
        try:
            await self.app(scope, receive, noted)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if not noted.begun:
                await as_response(unavailable("the service is being stopped; try again"))(scope, receive, send)

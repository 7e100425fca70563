"""Request bodies, below the routes: small ones are limited, and refusals reach clients that still send."""

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_JSON_BYTES = 64 * 1024
DRAIN_SECONDS = 3.0


class LimitSmallBodies:
    """ASGI middleware: a body is small, unless `multipart.read_form` reads it, which has limits of its own.

    What the body says of itself does not matter: JSON is read whole, under whatever Content-Type it comes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_JSON_BYTES and not scope.get("state", {}).get("reads_form"):
                raise HTTPException(413, f"the body is larger than {MAX_JSON_BYTES} bytes; send less")
            return message

        await self.app(scope, receive_limited, send)


class DrainUnreadBody:
    """ASGI middleware: ends an error's answer when the request's body has come, or DRAIN_SECONDS later.

    A server that closes a connection with unread bytes in it resets it, and the client loses the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not has_body(scope):
            await self.app(scope, receive, send)
            return
        unread = True
        refused = False

        async def receive_and_note() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def drain() -> None:
            while unread:
                await receive_and_note()

        async def send_and_drain(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = message["status"] >= 400
            elif refused and unread and not message.get("more_body", False):
                await send({**message, "more_body": True})  # the whole answer is out before anything is drained
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(drain(), DRAIN_SECONDS)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self.app(scope, receive_and_note, send_and_drain)


def has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

"""Whose file is decoded next: tenants take turns, so that one whose files are many, or slow, holds nobody else up."""

from collections import deque
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio
from anyio import CapacityLimiter, to_thread

Given = TypeVarTuple("Given")
Found = TypeVar("Found")


class Turns:
    """`count` threads; who waits for one holds none. For one event loop."""

    def __init__(self, count: int) -> None:
        self._threads = CapacityLimiter(count)
        self._free = count
        self._waiting: dict[str, deque[anyio.Event]] = {}  # by tenant, who comes next first

    async def run(self, tenant: str, function: Callable[[*Given], Found], *given: *Given) -> Found:
        """What the function returns, called in a thread when it is the tenant's turn."""
        await self._wait(tenant)
        try:
            # A request that is over, as when the server stops, is answered without waiting for its file.
            return await to_thread.run_sync(function, *given, limiter=self._threads, abandon_on_cancel=True)
        finally:
            self._hand_on()

    async def _wait(self, tenant: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn = anyio.Event()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn.wait()
        except BaseException:  # the request is over
            if turn.is_set():
                self._hand_on()
            else:
                self._forget(tenant, turn)
            raise

    def _hand_on(self) -> None:
        """To the first of the tenant that comes next, who then comes after all others."""
        if not self._waiting:
            self._free += 1
            return
        tenant = next(iter(self._waiting))
        turns = self._waiting.pop(tenant)
        turns.popleft().set()
        if turns:
            self._waiting[tenant] = turns

    def _forget(self, tenant: str, turn: anyio.Event) -> None:
        self._waiting[tenant].remove(turn)
        if not self._waiting[tenant]:
            del self._waiting[tenant]

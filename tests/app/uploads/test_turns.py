"""app/uploads/turns.py: who waits for a decoder, and for how long."""

import threading
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest

from app.uploads.turns import Turns


def in_order(count: int, *comers: str) -> list[str]:
    """Whose turn was when: all come while others have every turn that there is."""
    done: list[str] = []

    async def main() -> None:
        turns, held = Turns(count), threading.Event()
        async with anyio.create_task_group() as requests:
            for _ in range(count):
                requests.start_soon(turns.run, "first", held.wait)
            await anyio.wait_all_tasks_blocked()
            for tenant in comers:
                requests.start_soon(turns.run, tenant, done.append, tenant)
                await anyio.wait_all_tasks_blocked()
            held.set()

    anyio.run(main)
    return done


@pytest.mark.parametrize(
    ("comers", "expected"),
    [
        ("aaaa", "aaaa"),
        ("aaaab", "abaaa"),
        ("aaabbbc", "abcabab"),
        ("abab", "abab"),
    ],
)
def test_tenants_take_turns_however_many_one_asks_for(comers: str, expected: str) -> None:
    assert "".join(in_order(1, *comers)) == expected


def run(*parts: Callable[[Turns], Awaitable[None]]) -> None:
    async def main() -> None:
        turns = Turns(2)
        with anyio.fail_after(30):
            for part in parts:
                await part(turns)

    anyio.run(main)


async def all_are_free(turns: Turns) -> None:
    """Two threads, no more and no fewer, get a turn."""
    meet = threading.Barrier(2)
    async with anyio.create_task_group() as requests:
        for _ in range(4):
            requests.start_soon(turns.run, "a", partial(meet.wait, 10))


async def leave_while_waiting(turns: Turns) -> None:
    held = threading.Event()
    async with anyio.create_task_group() as holders:
        for _ in range(2):
            holders.start_soon(turns.run, "a", held.wait)
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as requests:
            for tenant in "abb":
                requests.start_soon(turns.run, tenant, never)
            await anyio.wait_all_tasks_blocked()
            requests.cancel_scope.cancel()
        held.set()


async def leave_when_called(turns: Turns) -> None:
    """The request ends at the very moment at which its turn comes."""
    held, request = threading.Event(), anyio.CancelScope()

    async def hold() -> None:
        await turns.run("a", held.wait)
        request.cancel()  # its turn was handed on, and nothing else has run since

    async def wait() -> None:
        with request:
            await turns.run("b", never)

    async with anyio.create_task_group() as requests:
        for _ in range(2):
            requests.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        requests.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        held.set()


async def fail(turns: Turns) -> None:
    with pytest.raises(ZeroDivisionError):
        await turns.run("a", lambda: 1 / 0)


def never() -> None:
    raise AssertionError("nobody waits for this any more")


@pytest.mark.parametrize("part", [leave_while_waiting, leave_when_called, fail])
def test_a_turn_is_never_lost(part: Callable[[Turns], Awaitable[None]]) -> None:
    run(part, all_are_free)


async def most_at_once(turns: Turns) -> None:
    now, seen, lock = 0, [], threading.Lock()

    def work() -> None:
        nonlocal now
        with lock:
            now += 1
            seen.append(now)
        threading.Event().wait(0.02)
        with lock:
            now -= 1

    async with anyio.create_task_group() as requests:
        for tenant in "abcabc":
            requests.start_soon(turns.run, tenant, work)
    assert max(seen) == 2


def test_no_more_run_at_once_than_there_are_decoders() -> None:
    run(most_at_once)

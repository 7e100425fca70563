"""Trials: a job, a fault, and then everything that must be true."""

import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

from benchmarks.faults import points
from benchmarks.faults.faults import FAULTS, Fault, NotInjected
from benchmarks.faults.leftovers import left_over, tidied
from benchmarks.faults.stack import Stack
from benchmarks.faults.store_faults import STORE_FAULTS
from benchmarks.faults.work import Broken, Client

ALL_FAULTS = FAULTS | STORE_FAULTS


@dataclass
class Tally:
    """Of one fault: how often it was put in, what was wrong after it, how long job and recovery took."""

    trials: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def soak(stack: Stack, names: Iterable[str], seed: int, say: Callable[[str], None]) -> dict[str, Tally]:
    """One trial for each of `names`, in order. The reference is the same job on the same service undisturbed."""
    client = Client(stack)
    client.import_pool()
    job_id = client.submit()
    reference = client.dataset(job_id)
    client.ask("DELETE", f"/jobs/{job_id}")
    blobs = tidied(stack.settings)
    tallies = {name: Tally() for name in ALL_FAULTS}
    for number, name in enumerate(names):
        chance = random.Random(f"{seed} {number}")
        begun = time.monotonic()
        try:
            wrong = trial(stack, client, ALL_FAULTS[name], chance, reference, blobs)
        except NotInjected:
            wrong = None
            clear(client)
        took = time.monotonic() - begun
        if wrong is not None:
            tallies[name].trials += 1
            tallies[name].failures += [f"trial {number}: {words}" for words in wrong]
            tallies[name].seconds.append(took)
        outcome = "the moment passed, no trial" if wrong is None else "; ".join(wrong) or "ok"
        say(f"{number} {name}: {outcome} ({took:.1f} s)")
    return tallies


def trial(
    stack: Stack, client: Client, fault: Fault, chance: random.Random, reference: str, blobs: set[str]
) -> list[str]:
    """What was wrong, in words. Raises NotInjected."""
    client.wrong.clear()
    wrong = []
    try:
        made = fault(stack, client, chance)
        if made is not None and made != reference:
            wrong.append("the dataset has other bytes")
    except Broken as error:
        wrong.append(str(error))
    finally:
        stack.paused.clear()
        points.disarm(stack.data_dir)
        if not stack.until(stack.is_ready):
            wrong.append("the service is not ready again")
    clear(client)
    return wrong + client.wrong + left_over(stack.settings, blobs)


def clear(client: Client) -> None:
    """Delete every job, as their owner would."""
    with suppress(Broken):
        for job in client.ask("GET", "/jobs").json()["items"]:
            client.ask("POST", f"/jobs/{job['id']}/cancel")
            client.wait(job["id"])
            client.ask("DELETE", f"/jobs/{job['id']}")


def table(tallies: dict[str, Tally]) -> str:
    """The Markdown table of what was tried."""
    lines = ["| fault | trials | failures | median s | longest s |", "|---|---:|---:|---:|---:|"]
    tried = {name: tally for name, tally in tallies.items() if tally.trials}
    for name, tally in tried.items():
        figures = f"{median(tally.seconds):.1f} | {max(tally.seconds):.1f}"
        lines.append(f"| {name} | {tally.trials} | {failed(tally)} | {figures} |")
    total, lost = sum(tally.trials for tally in tried.values()), sum(failed(tally) for tally in tried.values())
    return "\n".join([*lines, f"| **all** | **{total}** | **{lost}** | | |"])


def failed(tally: Tally) -> int:
    return len({words.partition(":")[0] for words in tally.failures})

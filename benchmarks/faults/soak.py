"""Trials: a job, a fault, and then everything that must be true."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.faults import points
from benchmarks.faults.faults import FAULTS, Fault, NotInjected, at_points
from benchmarks.faults.leftovers import Kept, left_over, tidied
from benchmarks.faults.stack import Stack
from benchmarks.faults.store_faults import HANGING, STORE_FAULTS, VERSIONS
from benchmarks.faults.work import EVALUATION, IMPORT, KINDS, SYNTHESIS, Broken, Client

ALL_FAULTS = FAULTS | STORE_FAULTS
# The kind of job that alone can meet a fault.
KIND_OF = {
    **dict.fromkeys((*at_points(points.SYNTHESIS_POINTS), HANGING, VERSIONS), SYNTHESIS),
    **dict.fromkeys(at_points(points.EVALUATION_POINTS), EVALUATION),
    **dict.fromkeys(at_points(points.IMPORT_POINTS), IMPORT),
}


@dataclass
class Tally:
    """Of one fault: the kinds of jobs that it was put into, what was wrong after it, how long job and recovery took."""

    trials: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Undisturbed:
    """What came of a job to which nothing happened, and how long that took."""

    result: str
    seconds: float


def soak(
    stack: Stack, names: Iterable[str], seed: int, say: Callable[[str], None], kinds: Sequence[str] = KINDS
) -> dict[str, Tally]:
    """One trial for each of `names` that a job of `kinds` can meet, in order.

    The reference is the same job on the same service undisturbed.
    """
    client = Client(stack)
    client.import_pool()
    references = {kind: undisturbed(client, kind) for kind in kinds}
    client.clear()
    before = tidied(stack.settings)
    tallies = {name: Tally() for name in ALL_FAULTS}
    for number, name in enumerate(names):
        chance = random.Random(f"{seed} {number}")
        client.kind = KIND_OF.get(name) or chance.choice(kinds)
        if client.kind not in kinds:
            continue
        reference = references[client.kind]
        client.job_seconds = reference.seconds
        begun = time.monotonic()
        try:
            wrong = trial(stack, client, ALL_FAULTS[name], chance, reference.result, before)
        except NotInjected:
            wrong = None
            client.clear()
        took = time.monotonic() - begun
        if wrong is not None:
            tallies[name].trials[client.kind] += 1
            tallies[name].failures += [f"trial {number}: {words}" for words in wrong]
            tallies[name].seconds.append(took)
        outcome = "the moment passed, no trial" if wrong is None else "; ".join(wrong) or "ok"
        say(f"{number} {client.kind}, {name}: {outcome} ({took:.1f} s)")
    return tallies


def undisturbed(client: Client, kind: str) -> Undisturbed:
    """The first synthesis stays: evaluations train on it."""
    client.kind = kind
    begun = time.monotonic()
    job_id = client.submit()
    result = client.result(job_id)
    if kind == SYNTHESIS:
        client.synthesis = job_id
    return Undisturbed(result, time.monotonic() - begun)


def trial(stack: Stack, client: Client, fault: Fault, chance: random.Random, reference: str, before: Kept) -> list[str]:
    """What was wrong, in words. Raises NotInjected."""
    client.wrong.clear()
    wrong = []
    try:
        made = fault(stack, client, chance)
        if made is not None and made != reference:
            wrong.append("what came of the job has other bytes")
    except Broken as error:
        wrong.append(str(error))
    finally:
        stack.paused.clear()
        points.disarm(stack.data_dir)
        if not stack.until(stack.is_ready):
            wrong.append("the service is not ready again")
    try:
        client.clear()
    except Broken as error:
        wrong.append(str(error))
    return wrong + client.wrong + left_over(stack.settings, before)


def table(tallies: dict[str, Tally]) -> str:
    """The Markdown table of what was tried."""
    lines = ["| fault | syntheses | evaluations | imports | failures | median s | longest s |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    tried = {name: tally for name, tally in tallies.items() if tally.seconds}
    for name, tally in tried.items():
        figures = f"{median(tally.seconds):.1f} | {max(tally.seconds):.1f}"
        lines.append(f"| {name} | {counts(tally.trials)} | {failed(tally)} | {figures} |")
    total, lost = sum((tally.trials for tally in tried.values()), Counter()), sum(map(failed, tried.values()))
    return "\n".join([*lines, f"| **all** | {counts(total)} | **{lost}** | | |"])


def counts(trials: Counter[str]) -> str:
    return " | ".join(str(trials[kind] or "–") for kind in KINDS)


def failed(tally: Tally) -> int:
    return len({words.partition(":")[0] for words in tally.failures})

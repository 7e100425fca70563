"""`pansynth evaluate`: does it help me? A labeled set is split, augmented, trained on and tested on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from cli.failure import Failure
from cli.labeled import Pair, labeled_files, labeled_pairs, split
from cli.out import check_new_folder, filled
from cli.pool import DEFAULT_URL, Url
from cli.progress import Show, progress

if TYPE_CHECKING:
    import httpx

FORMS = {"report": "report.json", "csv": "report.csv", "md": "report.md", "png": "report.png"}


def evaluate(
    labeled: Annotated[Path, typer.Option(help="Folder with images/ and masks/ of the same file names.")],
    pool: Annotated[str, typer.Option(help="The pool of unlabeled images; none of the labeled ones.")] = "default",
    out: Annotated[Path, typer.Option(help="Folder for the report; must not be there yet.")] = Path("evaluation"),
    guides: Annotated[
        int | None, typer.Option(min=1, help="Labeled images to train on; the rest is for testing. Default: half.")
    ] = None,
    top_k: Annotated[list[int] | None, typer.Option(help="Repeat to compare. Default: 5.")] = None,
    preset: Annotated[list[str] | None, typer.Option(help="Repeat to compare. Default: paper, harmonize.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps, the same for every arm.")] = 2000,
    seeds: Annotated[int, typer.Option(min=1, help="Training runs per arm.")] = 3,
    backbone: Annotated[str, typer.Option(help="mini for a CPU, b0 to b5, tiny to try things out.")] = "b0",
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of the synthesis.")] = 0,
    model: Annotated[str, typer.Option(help="Weights by name.")] = "default",
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Tell what synthetic images add in Dice, with an interval.

    The same command again goes on with the jobs that it began.
    """
    from cli.client import connect
    from cli.verdict import verdict

    check_new_folder(out)
    real, test = split(labeled_pairs(labeled), guides, seed)
    settings: list[dict[str, object]] = [
        {"pool": pool, "top_k": k, "preset": name, "seed": seed, "model": model}
        for name in preset or ["paper", "harmonize"]
        for k in top_k or [5]
    ]
    training: dict[str, object] = {"steps": steps, "seeds": seeds, "backbone": backbone}
    _check(real, test, settings, training)
    with progress("reading") as show:
        tested = _check_images(real, test, show)
    with connect(url) as client, progress("queued") as show:
        _check_pool(client, pool, tested)
        made = [_synthesis(client, real, setting, show) for setting in settings]
        report = _report(client, real, test, made, training, out, show)
    typer.echo(json.dumps(report) if as_json else f"{verdict(report)}\n\n{out}/report.md, .png, .csv and .json")


def _check(real: list[Pair], test: list[Pair], settings: list[dict[str, object]], training: dict[str, object]) -> None:
    """Raises Failure for what the service would refuse: now, not when hours of synthesis are done."""
    from pydantic import ValidationError

    from app.uploads.evaluation_form import MAX_SYNTHESES, EvaluationForm
    from app.uploads.forms import plain_errors
    from app.uploads.guides import MAX_GUIDES
    from app.uploads.synthesis_form import SynthesisForm

    for count, purpose in ((len(real), "train"), (len(test), "test")):
        if count > MAX_GUIDES:
            raise Failure(
                f"{count} labeled images to {purpose} on, at most {MAX_GUIDES} fit in one job; "
                "give another --guides, or fewer images"
            )
    if len(settings) > MAX_SYNTHESES:
        raise Failure(f"{len(settings)} settings, --preset times --top-k; at most {MAX_SYNTHESES} are compared at once")
    try:
        for setting in settings:
            SynthesisForm.model_validate(setting)
        EvaluationForm.model_validate({"synthesis": [uuid4().hex for _ in settings], **training})
    except ValidationError as error:
        wrong = plain_errors(error, ())[0]
        raise Failure(f"--{wrong.field.replace('_', '-')}: {wrong.detail}") from None


def _check_images(real: list[Pair], test: list[Pair], show: Show) -> dict[str, str]:
    """The test images' names by their sha256 in a pool.

    Raises Failure for images, masks and copies on two sides that the service would refuse, again before all else.
    """
    from models.duplicates import leaks
    from models.labeled_sets import known_images, read_labeled
    from models.pixels import image_png, sha256

    try:
        read = read_labeled(real + test, "reading", show)
    except ValueError as error:
        raise Failure(str(error)) from None
    known = known_images(read)
    if found := leaks(known[len(real) :], known[: len(real)]):
        raise Failure(
            f"test image {found[0]} to train on ({len(found)} such); a copy on either side tells nothing: keep one of "
            "each, or try another --seed"
        )
    return {sha256(image_png(read.images[row])): read.groups[row] for row in range(len(real), len(read))}


def _check_pool(client: "httpx.Client", pool: str, tested: dict[str, str]) -> None:
    """Raises Failure for test images in the pool, which the service would find among the backgrounds at the end."""
    from cli.client import listed, pool_path

    if found := [image for image in listed(client, f"{pool_path(pool)}/images") if image["sha256"] in tested]:
        raise Failure(
            f"test image {tested[found[0]['sha256']]} is in pool {pool}, too, as {found[0]['name']} ({len(found)} "
            "such); no labeled image may be: import the others into a new pool (`pansynth split` sets them apart)"
        )


def _synthesis(client: "httpx.Client", real: list[Pair], fields: dict[str, object], show: Show) -> str:
    from cli.client import begin, wait

    def show_setting(done: int, total: int, label: str) -> None:
        show(done, total, f"top {fields['top_k']} {fields['preset']}, {label}")

    job = begin(client, "/synthesize", labeled_files(real), fields)
    done: str = wait(client, job, show_setting)["id"]
    return done


def _report(
    client: "httpx.Client",
    real: list[Pair],
    test: list[Pair],
    syntheses: list[str],
    training: dict[str, object],
    out: Path,
    show: Show,
) -> dict[str, Any]:
    """Evaluate, and download every form of the report into `out`."""
    from cli.client import begin, download, saying_where, wait

    fields = {"synthesis": ",".join(syntheses), "arms": "real,real+synthetic", **training}
    job = begin(client, "/evaluations", labeled_files(real, "real_") + labeled_files(test, "test_"), fields)
    job = wait(client, job, show)
    with saying_where(client, job), filled(out) as folder:
        for link, name in FORMS.items():
            download(client, job["links"][link], folder / name, lambda done, total: show(done, total, "report"))
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report

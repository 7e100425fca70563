"""`pansynth synthesize`: labeled radiographs in, a dataset out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.failure import Failure
from cli.labeled import Pair, labeled_files, labeled_pairs
from cli.out import check_new_file
from cli.pool import DEFAULT_URL, Url
from cli.progress import Show, progress

if TYPE_CHECKING:
    import httpx

Images = Annotated[
    list[Path] | None, typer.Option("--image", help="A labeled radiograph; repeat, masks in the same order.")
]
Masks = Annotated[list[Path] | None, typer.Option("--mask", help="Its mask, the same size, binary.")]


def synthesize(
    image: Images = None,
    mask: Masks = None,
    labeled: Annotated[
        Path | None, typer.Option(help="Instead: a folder with images/ and masks/ of the same file names.")
    ] = None,
    pool: Annotated[str, typer.Option(help="The pool of unlabeled images.")] = "default",
    top_k: Annotated[int, typer.Option(help="Most similar pool images per guide.")] = 5,
    out: Annotated[Path, typer.Option(help="The zip to write; must not be there yet.")] = Path("dataset.zip"),
    preset: Annotated[str, typer.Option(help="paper or harmonize: the default from --steps to --align.")] = "paper",
    region: Annotated[str, typer.Option(help="none, or crop: the guides' tooth-bearing jaw alone.")] = "none",
    seed: Annotated[int, typer.Option(help="The same seed gives the same dataset.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, at most --start-timestep.")] = None,
    start_timestep: Annotated[int | None, typer.Option(help="Noise level to start from, of 1000.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddpm, ancestral steps, or ddim, deterministic ones.")] = None,
    dilation: Annotated[int | None, typer.Option(help="Of the mask, in latent pixels (8 px).")] = None,
    reblend: Annotated[bool | None, typer.Option(help="Put the background back after every step.")] = None,
    hold_anatomy: Annotated[bool | None, typer.Option(help="Put the guide's anatomy back after every step.")] = None,
    match_statistics: Annotated[
        bool | None, typer.Option(help="Give the guide's anatomy the pool image's brightness and contrast.")
    ] = None,
    transfer_detail: Annotated[bool | None, typer.Option(help="Put back the grain that the VAE loses.")] = None,
    restore_background: Annotated[
        bool | None, typer.Option(help="Put the pool image's own pixels back outside the mask.")
    ] = None,
    align: Annotated[
        bool | None, typer.Option(help="First move guide and mask together onto the pool image's anatomy.")
    ] = None,
    selection: Annotated[str, typer.Option(help="ssim, or as a control random.")] = "ssim",
    method: Annotated[str, typer.Option(help="diffusion, or as a control blend or paste.")] = "diffusion",
    model: Annotated[str, typer.Option(help="Weights by name.")] = "default",
    min_canal_retention: Annotated[
        float | None, typer.Option(help="Keep no sample whose canal_retention is below.")
    ] = None,
    min_alignment: Annotated[
        float | None, typer.Option(help="Keep no sample whose alignment is below or empty; needs --align.")
    ] = None,
    min_background_ssim: Annotated[
        float | None, typer.Option(help="Keep no sample whose background_ssim is below.")
    ] = None,
    max_seam: Annotated[float | None, typer.Option(help="Keep no sample whose seam is above.")] = None,
    min_training_distance: Annotated[
        float | None, typer.Option(help="Keep no sample whose training_distance is below.")
    ] = None,
    on_fail: Annotated[
        str | None, typer.Option(help="drop (default) or redraw: what becomes of a sample that fails a threshold.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print the job as JSON.")] = False,
) -> None:
    """Submit labeled radiographs and download their dataset.

    What is not given of --steps to --align is the preset's. The same command again goes on with the job that it began.
    """
    from cli.client import connect
    from cli.dataset import verify

    guides = _guides(image or [], mask or [], labeled)
    _check(guides, out)
    overrides = {
        "steps": steps,
        "start_timestep": start_timestep,
        "sampler": sampler,
        "dilation": dilation,
        "reblend": reblend,
        "hold_anatomy": hold_anatomy,
        "match_statistics": match_statistics,
        "transfer_detail": transfer_detail,
        "restore_background": restore_background,
        "align": align,
        "min_canal_retention": min_canal_retention,
        "min_alignment": min_alignment,
        "min_background_ssim": min_background_ssim,
        "max_seam": max_seam,
        "min_training_distance": min_training_distance,
        "on_fail": on_fail,
    }
    fields: dict[str, object] = {"pool": pool, "top_k": top_k, "preset": preset, "seed": seed}
    fields |= {"selection": selection, "region": region, "method": method, "model": model}
    fields |= {name: value for name, value in overrides.items() if value is not None}
    with connect(url) as client, progress("queued") as show:
        job = fetch_dataset(client, guides, fields, out, show)
    count = verify(out)
    typer.echo(json.dumps({"job": job, "out": str(out), "samples": count}) if as_json else _words(job, count, out))


def fetch_dataset(
    client: "httpx.Client", guides: Sequence[Pair], fields: Mapping[str, object], out: Path, show: Show
) -> dict[str, Any]:
    """Submit, wait, download into `out`; the job. Raises Interrupted."""
    from cli.client import begin, download, saying_where, wait

    job = wait(client, begin(client, "/synthesize", labeled_files(guides), fields), show)
    with saying_where(client, job):
        download(client, job["links"]["dataset"], out, lambda done, total: show(done, total, "bytes"))
    return job


def _words(job: dict[str, Any], count: int, out: Path) -> str:
    """How many samples there are, and what became of the others."""
    dropped = job["quality_summary"]["dropped"]
    failed = job["progress"]["done"] - job["quality_summary"]["kept"] - dropped
    words = f"{count} sample{'s' if count != 1 else ''} in {out}"
    words += f"; {dropped} failed a threshold and {'were' if dropped != 1 else 'was'} dropped" if dropped else ""
    return words + (f"; {failed} could not be made, the first: {job['failed_samples'][0]['detail']}" if failed else "")


def _guides(images: list[Path], masks: list[Path], labeled: Path | None) -> list[Pair]:
    if labeled is not None:
        if images or masks:
            raise Failure("--labeled and --image; give the folder of all guides, or the files of each")
        return labeled_pairs(labeled)
    if not images and not masks:
        raise Failure("no guide; give --image and --mask, or --labeled")
    if len(images) != len(masks):
        raise Failure(f"{len(images)} --image and {len(masks)} --mask; give one mask per image, in the same order")
    return list(zip(images, masks, strict=True))


def _check(guides: Sequence[Pair], out: Path) -> None:
    for pair in guides:
        for path in pair:
            if path.is_dir():
                raise Failure(f"{path}: it is a folder; give a file of it, or a folder of all guides as --labeled")
            if not path.is_file():
                raise Failure(f"{path}: no such file")
    check_new_file(out)

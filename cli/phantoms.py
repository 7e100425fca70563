"""`pansynth phantoms`: write procedural radiographs with their true masks."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli.failure import Failure
from cli.labeled import Pair
from cli.progress import Show, progress
from models.sharing import named

KINDS = ("images", "masks", "regions")


def phantoms(
    out: Annotated[Path, typer.Option(help="Folder to fill: images/, masks/, regions/, same file names.")],
    count: Annotated[int, typer.Option(min=1, help="How many phantoms.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Sets of different seeds share no anatomy.")] = 0,
    looks: Annotated[str | None, typer.Option(help="Looks to draw from, with commas. Default: all.")] = None,
) -> None:
    """Write phantoms: radiographs with masks of canal and region."""
    from models.phantoms import LOOKS

    chosen = LOOKS if looks is None else looks_of("--looks", looks)
    with progress("phantoms") as show:
        write_phantoms(out, count, seed, chosen, show)
    typer.echo(f"{count} phantoms in {out}")


def looks_of(option: str, given: str) -> tuple[str, ...]:
    """The looks that an option names, with commas. Raises Failure for one that is none."""
    from models.phantoms import LOOKS

    looks = tuple(look.strip() for look in given.split(","))
    if strange := [look for look in looks if look not in LOOKS]:
        raise Failure(f"{option}: unknown look {strange[0]!r}; choose from {', '.join(LOOKS)}")
    return looks


def write_phantoms(out: Path, count: int, seed: int, looks: Sequence[str], show: Show) -> list[Pair]:
    """Write a set of phantoms under `out`; the same arguments give the same bytes. -> their images and masks."""
    from models.phantoms.parallel import in_parallel

    for kind in KINDS:
        (out / kind).mkdir(parents=True, exist_ok=True)
    names = []
    for name in in_parallel(partial(_write_phantom, out, seed, tuple(looks)), count):
        names.append(name)
        show(len(names), count)
    return [(out / "images" / name, out / "masks" / name) for name in names]


def _write_phantom(out: Path, seed: int, looks: Sequence[str], index: int) -> str:
    from models.phantoms import nth_phantom
    from models.pixels import image_png, mask_png

    name = f"phantom-{seed}-{index:06d}.png"
    phantom = nth_phantom(seed, index, looks)
    pngs = (image_png(phantom.image), mask_png(phantom.mask), mask_png(phantom.region))
    with named(out):
        for kind, png in zip(KINDS, pngs, strict=True):
            (out / kind / name).write_bytes(png)
    return name

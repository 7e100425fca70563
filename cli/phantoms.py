"""`pansynth phantoms`: write procedural radiographs with their true masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from cli.failure import Failure


def phantoms(
    out: Annotated[Path, typer.Option(help="Folder to fill: images/, masks/, regions/, same file names.")],
    count: Annotated[int, typer.Option(min=1, help="How many phantoms.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Sets of different seeds share no anatomy.")] = 0,
    looks: Annotated[str | None, typer.Option(help="Looks to draw from, with commas. Default: all.")] = None,
) -> None:
    """Write phantoms: panoramic radiographs, their canal masks and their buccal regions."""
    from cli.progress import progress
    from models.phantoms import LOOKS

    chosen = LOOKS if looks is None else tuple(look.strip() for look in looks.split(","))
    for look in chosen:
        if look not in LOOKS:
            raise Failure(f"--looks: unknown look {look!r}; choose from {', '.join(LOOKS)}")
    with progress("phantoms") as show:
        write_phantoms(out, count, seed, chosen, show)
    typer.echo(f"{count} phantoms in {out}")


@dataclass(frozen=True)
class Written:
    """The files of a set of phantoms, one of each a phantom."""

    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)


def write_phantoms(
    out: Path, count: int, seed: int, looks: Sequence[str], show: Callable[..., None]
) -> Written:
    """Write a set of phantoms under `out`; the same arguments give the same bytes."""
    from models.phantoms import phantoms as make_phantoms
    from models.pixels import image_png, mask_png

    folders = [out / kind for kind in ("images", "masks", "regions")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    written = Written()
    for index, phantom in enumerate(make_phantoms(seed, count, looks)):
        image, mask, region = (folder / f"phantom-{seed}-{index:06d}.png" for folder in folders)
        image.write_bytes(image_png(phantom.image))
        mask.write_bytes(mask_png(phantom.mask))
        region.write_bytes(mask_png(phantom.region))
        written.images.append(image)
        written.masks.append(mask)
        show(index + 1, count)
    return written

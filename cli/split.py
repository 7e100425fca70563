"""`pansynth split`: the paper's four sets from your folders, with near-duplicates never on two sides."""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import Failure
from cli.labeled import labeled_pairs
from cli.out import check_new_folder, filled, next_command
from cli.progress import Show, progress, say

if TYPE_CHECKING:
    from models.duplicates import Known
    from models.splits import Split

SHARES = "How many, or below 1 what share"


def split(
    images: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of unlabeled radiographs, searched below too.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the sets and split.json; must not be there yet.")],
    labeled: Annotated[Path | None, typer.Option(help="Folder with images/ and masks/ of the same file names.")] = None,
    pool: Annotated[float, typer.Option(min=0, help=f"{SHARES}, of --images for the pool; the rest trains.")] = 0.3,
    guides: Annotated[float, typer.Option(min=0, help=f"{SHARES}, of --labeled as guides; the rest tests.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
) -> None:
    """Split your radiographs: train, pool, guides, test.

    Files become hard links (copies on another disk). Copies of one radiograph,
    re-saved, resized or brightened, are never on two sides. The shares are
    the paper's by default: 30 % of the unlabeled, 10 % of the labeled.
    """
    from models.splits import split_images

    check_new_folder(out)
    with progress("reading") as show:
        own = _Source.labeled(labeled, show) if labeled else _Source()
        if labeled and not own.paths:
            raise Failure(f"--labeled {labeled}: no image is left; give readable images with masks of their size")
        free = _Source.unlabeled(images, show)  # last, for there are many
    try:
        found = split_images(free.known, own.known, pool, guides, seed)
    except ValueError as error:
        raise Failure(str(error)) from None
    with filled(out) as aside:
        _write(aside, found, free, own, {"pool": pool, "guides": guides, "seed": seed})
    for row, same in found.dropped:
        typer.echo(f"{free.known[row].name} is left out: it is the labeled {own.known[same].name}")
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in vars(found).items() if name != "dropped")
    typer.echo(f"{counts} in {out}, listed in {out}/split.json")
    judged = ["--labeled", out / "guides"] if found.guides else []
    vae = ["train", "vae", "--data", out / "train", "--out", "weights/mine", *judged, "--minutes", 600]
    typer.echo(next_command("pansynth", *vae))


@dataclass
class _Source:
    """The readable files of a folder: paths, masks if they have any, what is known of each, and their sha256."""

    paths: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    known: "list[Known]" = field(default_factory=list)
    sha256s: list[str] = field(default_factory=list)

    @classmethod
    def unlabeled(cls, folder: Path, show: Show) -> "_Source":
        from models.training.images import image_paths

        paths = image_paths(folder)
        return cls._read(paths, [], [path.relative_to(folder).as_posix() for path in paths], show)

    @classmethod
    def labeled(cls, folder: Path, show: Show) -> "_Source":
        pairs = labeled_pairs(folder)
        paths, masks = [image for image, _ in pairs], [mask for _, mask in pairs]
        return cls._read(paths, masks, [path.name for path in paths], show)

    @classmethod
    def _read(cls, paths: list[Path], masks: list[Path], names: list[str], show: Show) -> "_Source":
        from models.duplicates import Known
        from models.training.images import describe

        source = cls()
        for row, entry in enumerate(describe(paths, masks or [None] * len(paths), names, show)):
            if "rejected" in entry:
                say(f"{entry['name']} is left out: {entry['rejected']}")
                continue
            source.paths.append(paths[row])
            source.masks += masks[row : row + 1]
            source.sha256s.append(entry.pop("sha256"))
            source.known.append(Known(**entry))
        return source


def _write(folder: Path, found: "Split", free: _Source, own: _Source, options: dict[str, float]) -> None:
    from models.splits import MANIFEST, manifest_entries

    sets = {"train": (free, found.train), "pool": (free, found.pool)}
    sets |= {"guides": (own, found.guides), "test": (own, found.test)} if own.paths else {}
    for name, (source, rows) in sets.items():
        for row in rows:
            image = source.known[row].name
            _link(source.paths[row], folder / name / ("images" if source.masks else "") / image)
            if source.masks:
                _link(source.masks[row], folder / name / "masks" / source.masks[row].name)
    entries = {name: manifest_entries(source.known, rows, source.sha256s) for name, (source, rows) in sets.items()}
    dropped = [{"name": free.known[row].name, "labeled": own.known[same].name} for row, same in found.dropped]
    manifest = {**options, "sets": {"guides": [], "test": []} | entries, "dropped": dropped}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one without hard links
        with suppress(shutil.SameFileError):  # linked already: x.png and x.jpg may have one mask
            shutil.copy2(source, target)

"""A dataset as it was downloaded: does every file agree with its manifest?"""

import csv
import hashlib
import io
import zipfile
from pathlib import Path

from cli.failure import Failure
from models.sharing import named

ALWAYS = ("README.md", "job.json", "manifest.csv", "preview.png")


def verify(path: Path) -> int:
    """Hold every file of the zip against `manifest.csv`; the number of samples. Raises Failure."""
    try:
        with zipfile.ZipFile(path) as dataset:
            return _verify(dataset)
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise Failure(f"{path} is not a whole dataset: {error}") from error


def _verify(dataset: zipfile.ZipFile) -> int:
    with io.TextIOWrapper(dataset.open("manifest.csv"), encoding="utf-8", newline="") as manifest:
        rows = list(csv.DictReader(manifest))
    expected = {name: row[f"{kind}_sha256"] for row in rows for kind in ("image", "mask") if (name := row[kind])}
    names = {*expected, *ALWAYS}
    if names != set(dataset.namelist()):
        odd = sorted(names ^ set(dataset.namelist()))
        raise Failure(f"{dataset.filename}: the manifest and the files disagree about {', '.join(odd[:5])}")
    for name, sha256 in expected.items():
        if (found := hashlib.sha256(dataset.read(name)).hexdigest()) != sha256:
            raise Failure(f"{dataset.filename}: {name} has sha256 {found}, the manifest says {sha256}")
    return len(rows)


def extract_preview(path: Path, out: Path) -> None:
    with zipfile.ZipFile(path) as dataset, named(out):
        out.write_bytes(dataset.read("preview.png"))

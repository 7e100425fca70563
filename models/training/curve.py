"""The curve of a training: a table with a row for every validation."""

import csv
import io
import math
from pathlib import Path

from models.sharing import whole


class Curve:
    """`curve.csv`, always whole; of a run that was stopped the rows up to its checkpoint stay."""

    def __init__(self, path: Path, step: int) -> None:
        """`step`: that of the checkpoint the run goes on from, 0 for one that begins."""
        self._path = path
        self._rows = {int(row["step"]): row for row in _read(path) if int(row["step"]) <= step}

    def note(self, step: int, seconds: float, loss: float, figures: dict[str, float]) -> None:
        """A row; figures that others lack have a column all the same. Where no step was made, `loss` is nan."""
        row = {"step": step, "seconds": round(seconds, 1)} | ({} if math.isnan(loss) else {"loss": round(loss, 5)})
        row |= {name: round(value, 4) for name, value in figures.items()}
        self._rows[step] = self._rows.get(step, {}) | {name: str(value) for name, value in row.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, dict.fromkeys(name for row in self._rows.values() for name in row))
        writer.writeheader()
        writer.writerows(self._rows.values())
        with whole(self._path) as file:
            file.write(text.getvalue().encode())


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))

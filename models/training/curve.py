"""The curve of a training: a table with a row for every validation."""

import csv
import io
import math
from pathlib import Path

from models.sharing import whole


class Curve:
    """`curve.csv`, always complete; a resumed run keeps the rows up to its checkpoint."""

    def __init__(self, path: Path, step: int) -> None:
        """`step`: that of the checkpoint from which the run is resumed, 0 for a new run."""
        self._path = path
        self._rows = {int(row["step"]): row for row in _read(path) if int(row["step"]) <= step}

    def note(self, step: int, seconds: float, loss: float, figures: dict[str, float]) -> None:
        """Add a row; a figure that other rows lack gets a column, too. `loss` is nan where no step was made."""
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

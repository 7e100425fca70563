"""A labeled radiograph goes in over HTTP, a labeled dataset comes out, the same however it is run."""

import csv
import io
import json
import zipfile
from pathlib import Path

from cli.dataset import verify
from models.pixels import image_from_png, mask_from_png
from tests.system.running import FIELDS, PATIENT, Radiographs, Restarted, fleet, make_dataset

pytestmark = PATIENT


def test_the_dataset_agrees_with_its_manifest(reference: bytes, radiographs: Radiographs, tmp_path: Path) -> None:
    path = tmp_path / "dataset.zip"
    path.write_bytes(reference)
    assert verify(path) == 16
    with zipfile.ZipFile(path) as dataset:
        rows = list(csv.DictReader(io.TextIOWrapper(dataset.open("manifest.csv"))))
        for row in rows:
            guide = radiographs.masks[[path.name for path in radiographs.guides].index(row["guide_name"])]
            assert (mask_from_png(dataset.read(row["mask"])) == mask_from_png(guide.read_bytes())).all()
            assert image_from_png(dataset.read(row["image"])).std() > 5
    assert {row["pool_image_name"] for row in rows} <= {path.name for path in radiographs.pool}
    assert [int(row["rank"]) for row in rows] == [*range(1, FIELDS["top_k"] + 1)] * 2


def test_a_fleet_on_postgresql_and_redis_makes_the_same_dataset_and_logs_in_json_from_its_first_line_to_its_last(
    tmp_path: Path,
    weights_dir: Path,
    radiographs: Radiographs,
    reference: bytes,
    postgres_url: str,
    broker_by_tcp: str,
) -> None:
    with fleet(tmp_path, weights_dir, postgres_url, broker_by_tcp, workers=1) as service, service.client() as client:
        assert make_dataset(client, radiographs, tmp_path / "dataset.zip") == reference
    said = {name: (tmp_path / f"{name}.log").read_text().splitlines() for name in ("serve", "worker-0")}
    logged = {name: [json.loads(line) for line in lines] for name, lines in said.items()}
    assert logged["serve"][-1]["message"].startswith("Finished server process")
    own = [line["message"] for line in logged["worker-0"] if line["logger"] == "worker.celery"]
    assert own == ["this worker is ready, on cpu", "this worker ends"]


def test_a_worker_that_was_killed_in_the_middle_is_replaced(restarted: Restarted) -> None:
    killed = restarted.worker_killed
    assert killed.victim in killed.before - killed.after
    assert len(killed.before) == len(killed.after) == 2

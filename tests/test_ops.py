"""ops/: the dashboard asks for what /metrics has, the cluster's example sets what settings there are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings
from tests.serving import serving, write_weights

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> str:
    folder = tmp_path_factory.mktemp("metrics")
    write_weights(folder / "weights")
    given = {"data_dir": folder / "data", "weights_dir": folder / "weights"}
    with serving(Settings(broker_url=broker_url, **given)) as served:
        served.client.get("/jobs/no-such-job")
        assert served.client.post("/pools/default/images", files={"images": ("a", b"x")}).status_code == 202
        return served.client.get("/metrics").text


@pytest.mark.parametrize("file", ["ops/grafana.json", "ops/kubernetes.yaml", "docs/operations.md"])
def test_every_metric_that_is_asked_for_is_exported(metrics: str, file: str) -> None:
    asked = set(re.findall(r"pansynth_[a-z_]+", (ROOT / file).read_text()))
    assert asked
    assert not [name for name in asked if not re.search(rf"^{name}[{{ ]", metrics, re.MULTILINE)]


def test_the_dashboard_has_panels_with_ids_of_their_own() -> None:
    panels = json.loads((ROOT / "ops/grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 5
    assert all(target["expr"] for panel in panels for target in panel["targets"])


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "ops/kubernetes.yaml").read_text()))


def test_the_clusters_parts_refer_to_one_another() -> None:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for document in documents():
        by_kind.setdefault(document["kind"], []).append(document)
    deployments = {document["metadata"]["name"]: document["spec"] for document in by_kind["Deployment"]}
    for spec in deployments.values():
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    (service,), (scaled,) = by_kind["Service"], by_kind["ScaledObject"]
    assert service["spec"]["selector"] == deployments["pansynth-api"]["selector"]["matchLabels"]
    assert scaled["spec"]["scaleTargetRef"]["name"] in deployments


@pytest.mark.parametrize("file", ["ops/kubernetes.yaml", "docker-compose.yml"])
def test_only_settings_that_there_are_are_set(file: str) -> None:
    named = set(re.findall(r"PANSYNTH_([A-Z_]+)\b", (ROOT / file).read_text())) - {"PORT"}
    assert named <= {name.upper() for name in Settings.model_fields}


def test_the_operations_page_tells_of_every_setting() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    assert not [name for name in Settings.model_fields if f"`{name.upper()}`" not in page]

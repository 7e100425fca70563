"""ops/: the dashboard asks for what /metrics has, the cluster's example sets what settings there are."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from app.monitoring.figures import Figures
from app.settings import Settings
from tests.serving import give_sign_of_life, serving, write_weights

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> str:
    folder = tmp_path_factory.mktemp("metrics")
    write_weights(folder / "weights")
    given = {"data_dir": folder / "data", "weights_dir": folder / "weights"}
    counted = Figures()
    counted.step_ended("sample", 12.0)
    with serving(Settings(broker_url=broker_url, **given)) as served:
        served.client.get("/jobs/no-such-job")
        give_sign_of_life(served.service, [], {**counted.snapshot(), "gpu": {"used": 1, "total": 2}})
        return served.client.get("/metrics").text


@pytest.mark.parametrize("file", ["ops/grafana.json", "ops/kubernetes.yaml", "docs/operations.md"])
def test_every_metric_that_is_asked_for_is_exported(metrics: str, file: str) -> None:
    asked = set(re.findall(r"pansynth_[a-z_]+", (ROOT / file).read_text()))
    assert asked
    assert not [name for name in asked if not re.search(rf"^{name}(_bucket)?[{{ ]", metrics, re.MULTILINE)]


def test_every_metric_is_in_the_dashboard_or_explained(metrics: str) -> None:
    told = (ROOT / "ops/grafana.json").read_text() + (ROOT / "docs/operations.md").read_text()
    exported = set(re.findall(r"^# TYPE (pansynth_\w+) (?:counter|gauge|histogram)$", metrics, re.MULTILINE))
    unexplained = {name for name in exported if name not in told}
    assert not {name for name in unexplained if not name.endswith("_created")}


def test_a_refusal_worth_an_alarm_is_counted_from_0_so_that_the_first_is_a_rise(metrics: str) -> None:
    reasons = re.findall(r'reason="([a-z-]+)"', (ROOT / "docs/operations.md").read_text())
    counted = re.findall(r'^pansynth_refusals_total{reason="([a-z-]+)",status="[0-9]+"} 0\.0$', metrics, re.MULTILINE)
    assert len(reasons) > 3
    assert set(reasons) <= set(counted)


def test_the_dashboard_has_panels_with_ids_of_their_own() -> None:
    panels = json.loads((ROOT / "ops/grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 5
    assert all(target["expr"] for panel in panels for target in panel["targets"])


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "ops/kubernetes.yaml").read_text()))


# What KEDA's own definition asks of a ScaledObject with a Prometheus trigger; it is none of Kubernetes' schemas.
SCALED_OBJECT = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "spec": {
            "type": "object",
            "required": ["scaleTargetRef", "triggers"],
            "additionalProperties": False,
            "properties": {
                "scaleTargetRef": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
                "cooldownPeriod": {"type": "integer"},
                "minReplicaCount": {"type": "integer"},
                "maxReplicaCount": {"type": "integer"},
                "triggers": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/prometheus"}},
            },
        },
    },
    "$defs": {
        "prometheus": {
            "required": ["type", "metadata"],
            "properties": {
                "type": {"const": "prometheus"},
                "metadata": {
                    "required": ["serverAddress", "query", "threshold"],
                    "additionalProperties": {"type": "string"},
                },
            },
        }
    },
}


@pytest.mark.parametrize("version", ["1.27", kubernetes_validate.latest_version()])
def test_every_document_is_as_kubernetes_asks(version: str) -> None:
    for document in documents():
        if document["kind"] == "ScaledObject":
            jsonschema.validate(document, SCALED_OBJECT)
        else:
            kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_notice_a_slip() -> None:
    deployment = next(document for document in documents() if document["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


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


def test_a_namespace_that_enforces_the_restricted_standard_takes_every_pod() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    pods = [document["spec"]["template"]["spec"] for document in documents() if "template" in document["spec"]]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            allowed = container["securityContext"]
            assert allowed == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize("file", ["ops/kubernetes.yaml", "docker-compose.yml"])
def test_only_settings_that_there_are_are_set(file: str) -> None:
    named = set(re.findall(r"PANSYNTH_([A-Z_]+)\b", (ROOT / file).read_text())) - {"PORT"}
    assert named <= {name.upper() for name in Settings.model_fields}


def test_the_operations_page_tells_of_every_setting() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    assert not [name for name in Settings.model_fields if f"`{name.upper()}`" not in page]

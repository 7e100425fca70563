from pathlib import Path

import httpx
import pytest

from app.service import Service
from app.settings import Settings
from app.weights import list_weights, region_folder
from tests.serving import give_sign_of_life, write_weights


def test_weights_are_listed_with_their_card(client: httpx.Client, settings: Settings) -> None:
    models = {model["name"]: model for model in client.get("/models").json()["items"]}
    assert models["default"]["card"] == "# Weights for tests\n"
    assert models["default"]["sha256"] == list_weights(settings)["default"].sha256
    assert (models["default"]["latent_channels"], models["default"]["bytes"]) == (4, 246)
    assert models["default"]["loaded"] is False


def test_weights_that_a_live_worker_holds_are_loaded(client: httpx.Client, service: Service) -> None:
    give_sign_of_life(service, ["default"])
    models = client.get("/models").json()["items"]
    assert [model["name"] for model in models if model["loaded"]] == ["default"]


def test_weights_of_the_user_come_before_shipped_ones_of_the_same_name(tmp_path: Path) -> None:
    sha256 = write_weights(tmp_path, "default")
    assert list_weights(Settings(weights_dir=tmp_path))["default"].sha256 == sha256


def test_the_region_finder_lies_among_the_weights_and_is_none_of_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shipped = Settings()
    assert region_folder(shipped).is_dir()
    assert "region" not in list_weights(shipped)
    assert not caplog.records
    (tmp_path / "region").mkdir()
    (tmp_path / "region" / "manifest.json").write_text('{"kind": "region"}')
    assert region_folder(Settings(weights_dir=tmp_path)) == tmp_path / "region"


def test_shipped_weights_know_their_training_images() -> None:
    assert list_weights(Settings())["default"].knows_training_images


def test_a_folder_without_a_readable_manifest_is_left_out(tmp_path: Path) -> None:
    write_weights(tmp_path, "good")
    for name, content in [("cut", "{"), ("list", "[]"), ("other", '{"latent": 1}')]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(content)
    (tmp_path / "empty").mkdir()
    found = list_weights(Settings(weights_dir=tmp_path))
    assert "good" in found
    assert not {"cut", "list", "other", "empty"} & set(found)

"""`pansynth synthesize`: each option reaches the service as what it says, and as nothing else."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.settings import Settings
from cli.failure import Failure
from cli.main import app
from tests.serving import Served, empty, fill_pool, guide_files, serving
from tests.waiting import until


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> Iterator[Served]:
    """The weights are those that ship."""
    with serving(Settings(data_dir=tmp_path_factory.mktemp("served") / "data", broker_url=broker_url)) as served:
        yield served


@pytest.fixture
def served(running: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("cli.client.POLL_SECONDS", 0.01)
    fill_pool(running.service, "clinic", 3)
    yield running
    empty(running.service)


def cancel_first(served: Served) -> dict[str, Any]:
    """The parameters of the job that comes, which is cancelled: no worker is there."""
    until(lambda: served.client.get("/jobs").json()["items"])
    (job,) = served.client.get("/jobs").json()["items"]
    served.client.post(job["links"]["cancel"]).raise_for_status()
    parameters: dict[str, Any] = job["parameters"]
    return parameters


FLAGS = ("reblend", "hold_anatomy", "match_statistics", "transfer_detail", "restore_background", "align")
OTHERS = {
    "pool": "clinic",
    "top_k": 2,
    "seed": 3,
    "region": "crop",
    "steps": 4,
    "start_timestep": 5,
    "sampler": "ddim",
    "dilation": 6,
    "selection": "random",
    "method": "blend",
    "min_canal_retention": 0.1,
    "min_alignment": 0.2,
    "min_background_ssim": 0.3,
    "max_seam": 0.4,
    "min_training_distance": 0.5,
    "on_fail": "redraw",
}


@pytest.mark.parametrize(
    "given", [{flag: True} for flag in FLAGS] + [OTHERS | {"align": True}, {"preset": "harmonize", "align": False}]
)
def test_every_option_is_the_parameter_of_its_name(served: Served, tmp_path: Path, given: dict[str, Any]) -> None:
    words = ["synthesize", "--url", str(served.client.base_url), "--out", str(tmp_path / "dataset.zip")]
    for role, (name, data, _) in guide_files():
        (tmp_path / name).write_bytes(data)
        words += [f"--{role}", str(tmp_path / name)]
    given = {"pool": "clinic", "top_k": 1} | given
    for name, value in given.items():
        option = name.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(cancel_first, served)
        with pytest.raises(Failure, match="was cancelled"):
            CliRunner().invoke(app, words, catch_exceptions=False)
    presets = served.client.get("/presets").json()
    others = {"preset": "paper", "region": "none", "selection": "ssim", "method": "diffusion", "seed": 0}
    others |= {"model": "default", "guides": ["guide-0.png"]}
    assert asked.result() == presets[given.get("preset", "paper")] | others | given

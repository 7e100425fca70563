"""`pansynth train` in two processes, as torchrun starts them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.test_train import write, write_labeled
from tests.tiny import make_tiny_weights

# What torchrun does, for one command line after another. Each is forked from a process that has loaded torch, which
# takes longer than all that they do.
TORCHRUN = """
import json, os, sys, time
import worker.devices
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from cli.main import app
from models.training import denoiser, images, vae
from tests.tiny import tiny_autoencoder, tiny_unet

denoiser.build_unet, vae.build_autoencoder = tiny_unet, tiny_autoencoder
image_paths = images.image_paths

def late(folder):
    time.sleep(0.5)
    return image_paths(folder)

def run(arguments):
    first = os.environ["RANK"] == "0"
    if first:
        images.image_paths = late
    try:
        app(arguments, standalone_mode=False)
    finally:
        time.sleep(first)  # the other ends before it

once = {"max_restarts": 0, "start_method": "fork"}
config = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", **once)
for line in sys.stdin:
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    arguments, *outputs = json.loads(line)
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    elastic_launch(config, run)(arguments)
    os._exit(0)
"""

InTwo = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def loaded() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", TORCHRUN]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


@pytest.fixture
def run_in_two(loaded: subprocess.Popen[str], tmp_path: Path) -> InTwo:
    """`pansynth train` in two processes."""

    def run(kind: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        arguments = ["train", kind, "--steps", "2", "--batch", "2", "--device", "cpu", *map(str, options)]
        outputs = [tmp_path / "stdout", tmp_path / "stderr"]
        assert loaded.stdin is not None and loaded.stdout is not None
        print(json.dumps([arguments, *map(str, outputs)]), file=loaded.stdin, flush=True)
        status = int(loaded.stdout.readline())
        return subprocess.CompletedProcess(arguments, status, *(path.read_text() for path in outputs))

    return run


def test_two_processes_train_a_vae_and_the_first_alone_speaks_and_writes(run_in_two: InTwo, tmp_path: Path) -> None:
    data, judges = write(tmp_path / "data", 0, 9), write_labeled(tmp_path / "judges", 40, 3)
    out = tmp_path / "own"
    done = run_in_two("vae", "--data", data, "--out", out, "--labeled", judges, "--exclude", judges)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("VAE in ") == 1
    assert done.stdout.endswith(f"next: pansynth train denoiser --data {data} --out {out}\n")
    assert done.stderr.count("done; last figures and sheet") == 1
    facts = json.loads((out / "manifest.json").read_text())["training"]["vae"]
    assert facts["steps"] == 2 and facts["not_among"] == 3 and "canal_retention" in facts
    with Image.open(tmp_path / "own.training" / "vae" / "sheets" / "0000002.png") as sheet:
        assert sheet.size == (3 * 512, (2 * 2 + 2) * (256 + 16))


def test_two_processes_train_a_denoiser_and_the_first_reads_for_both(run_in_two: InTwo, tmp_path: Path) -> None:
    out = make_tiny_weights(tmp_path / "own")
    done = run_in_two("denoiser", "--data", write(tmp_path / "data", 0, 9), "--out", out)
    assert done.returncode == 0, done.stderr
    for told in ("reading 9/9", "latents 9/9", "done; last figures and sheet"):
        assert done.stderr.count(told) == 1
    assert done.stdout.count("denoiser in ") == 1
    assert json.loads((out / "manifest.json").read_text())["training"]["denoiser"]["latents"] == 18


def test_of_two_processes_either_tells_what_the_first_found_wrong_with_the_images(
    run_in_two: InTwo, tmp_path: Path
) -> None:
    done = run_in_two("vae", "--data", write(tmp_path / "data", 0, 3), "--out", tmp_path / "own")
    assert done.returncode == 1
    assert "holds 3 readable radiographs" in done.stderr
    assert "Connection closed" not in done.stderr

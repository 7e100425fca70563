"""`pansynth train`: the commands, on a handful of small images."""

import errno
import json
import os
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from cli.failure import Failure
from cli.main import app
from cli.processes import in_words, joined
from models.region import load_region
from models.training.segmenter import SegmenterTraining
from models.weights import write_manifest
from tests.full_disk import no_file_above
from tests.tiny import make_tiny_weights, tiny_autoencoder


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception is not None:
        raise done.exception
    return done.stdout


def smooth(seed: int, scale: float = 1.0) -> Image.Image:
    rough = np.random.default_rng(seed).integers(0, 256, (8, 16)) * scale
    return Image.fromarray(rough.astype(np.uint8)).resize((128, 64), Image.Resampling.BICUBIC)


def write(folder: Path, first: int, count: int) -> Path:
    folder.mkdir(parents=True)
    for seed in range(first, first + count):
        smooth(seed).save(folder / f"{seed}.png")
    return folder


def write_labeled(folder: Path, first: int, count: int, kind: str = "masks") -> Path:
    write(folder / "images", first, count)
    (folder / kind).mkdir()
    for path in sorted((folder / "images").iterdir()):
        mask = np.zeros((64, 128), np.uint8)
        mask[30:36, 10:100] = 1
        Image.fromarray(mask).save(folder / kind / path.name)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "data", 0, 9)


@pytest.fixture(autouse=True)
def small_vae(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.training.vae.build_autoencoder", tiny_autoencoder)


def vae(data: Path, out: Path, *more: str | Path) -> str:
    return run("train", "vae", "--data", data, "--out", out, "--steps", "1", "--batch", "2", *more)


@pytest.mark.parametrize("kind", ["folder", "labeled folder", "split.json"])
def test_training_on_images_of_the_test_is_refused(data: Path, tmp_path: Path, kind: str) -> None:
    test = write_labeled(tmp_path / "labeled", 20, 8)
    excluded = test
    if kind == "split.json":
        run("split", "--images", data, "--labeled", test, "--out", tmp_path / "split", "--guides", "4")
        excluded = tmp_path / "split" / "split.json"
        data = write(tmp_path / "more", 30, 8)
    smooth(25).save(data / "same.png")
    smooth(26, 0.7).save(data / "darker.jpg", quality=50)
    option = "--labeled" if kind == "labeled folder" else "--exclude"
    with pytest.raises(Failure, match=r"^2 of the 1[01] training images are for synthesis or for tests") as failure:
        vae(data, tmp_path / "out", option, excluded)
    assert "darker.jpg (nearly the same image as" in str(failure.value)
    assert "same.png (the same pixels as" in str(failure.value)
    assert "pansynth split" in str(failure.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["train", "pool", "."])
def test_what_split_made_guards_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    made = tmp_path / "split"
    run("split", "--images", write(tmp_path / "free", 50, 30), "--out", made)
    stray = next((made / "pool").iterdir())
    (made / "train" / "stray.png").write_bytes(stray.read_bytes())
    with pytest.raises(Failure, match="training images are for synthesis or for tests") as failure:
        vae(made / part, tmp_path / "out")
    assert stray.name in str(failure.value)
    monkeypatch.chdir(made / part)
    with pytest.raises(Failure, match="training images are for synthesis or for tests"):
        vae(Path(), tmp_path / "out")


def test_a_region_finder_is_trained_from_images_and_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labeled = write_labeled(tmp_path / "labeled", 60, 3, "regions")
    for mask in list((labeled / "regions").iterdir()):
        Image.open(mask).save(mask.with_suffix(".bmp"))
        mask.unlink()
    monkeypatch.setattr("models.training.checkpoint.SECONDS", 0.0)
    said = run("train", "region", "--data", labeled, "--out", tmp_path / "region", "--steps", "2", "--batch", "2")
    assert "region finder in" in said
    assert not list(tmp_path.rglob("*.checkpoint")), "the next run would go on with this one"
    load_region(tmp_path / "region")
    with pytest.raises(Failure, match="it needs the folders images/ and regions/"):
        run("train", "region", "--data", tmp_path, "--out", tmp_path / "none")
    min((labeled / "regions").iterdir()).unlink()
    with pytest.raises(Failure, match=r"\.png has no mask of its name"):
        run("train", "region", "--data", labeled, "--out", tmp_path / "none")


def test_weights_of_one_kind_do_not_replace_those_of_another(data: Path, tmp_path: Path) -> None:
    vae = make_tiny_weights(tmp_path / "clinic")
    regions = write_labeled(tmp_path / "regions", 0, 2, "regions")
    with pytest.raises(Failure, match="clinic holds a VAE, whose manifest would be lost"):
        run("train", "region", "--data", regions, "--out", vae)
    (region := tmp_path / "region").mkdir()
    write_manifest(region, {"kind": "region"}, [])
    with pytest.raises(Failure, match="holds a region finder, whose manifest would be lost"):
        run("train", "vae", "--data", data, "--out", region)
    (region / "manifest.json").write_text("{")
    with pytest.raises(Failure, match=r"manifest\.json is not JSON"):
        run("train", "vae", "--data", data, "--out", region)


WITHOUT_TORCH = """
import sys
from cli.main import main

for kind in ("vae", "denoiser", "segmenter", "region"):
    sys.argv[1:] = ["train", kind, "--data", "no-such-folder", "--out", "weights"]
    try:
        main()
    except SystemExit as ended:
        print(kind, ended.code, "torch" in sys.modules)
"""


def test_data_that_is_not_there_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["vae 2 False", "denoiser 2 False", "segmenter 1 False", "region 1 False"]
    assert done.stderr.count("no-such-folder") == 4 and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["vae", "denoiser", "region"])
def test_weights_that_could_not_be_written_are_refused_before_they_are_trained(tmp_path: Path, kind: str) -> None:
    data = write_labeled(tmp_path / "data", 0, 8, "regions")
    (file := tmp_path / "file").touch()
    done = CliRunner().invoke(app, ["train", kind, "--data", str(data), "--out", str(file), "--steps", "1"])
    assert done.exit_code == 2 and "is a file" in done.stderr


@pytest.mark.parametrize("kind", ["vae", "denoiser", "segmenter", "region"])
def test_a_seed_that_no_generator_takes_is_refused_before_any_image_is_read(tmp_path: Path, kind: str) -> None:
    given = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--seed", str(2**64)]
    done = CliRunner().invoke(app, ["train", kind, *given])
    assert done.exit_code == 2 and "--seed" in done.stderr and str(2**63 - 1) in done.stderr


def test_weights_need_a_name(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    for nameless in (".", "..", "/"):
        with pytest.raises(Failure, match="the weights take the name of their folder"):
            vae(data, Path(nameless))


def test_the_denoiser_asks_for_its_vae_first(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "the clinic's"
    with pytest.raises(Failure) as failure:
        run("train", "denoiser", "--data", data, "--out", out)
    _, _, command = str(failure.value).partition("the VAE comes first; next: ")
    assert shlex.split(command) == ["pansynth", "train", "vae", "--data", str(data), "--out", str(out)]


def test_a_gpu_that_is_not_there_is_no_traceback(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="give auto, cpu, cuda or cuda:N"):
        vae(data, tmp_path / "out", "--device", "abacus")


@pytest.fixture
def group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun tells a process that it starts alone."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in ({"TORCHELASTIC_RUN_ID": "none"} | alone).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("group_of_one")
def test_a_process_that_fails_does_not_wait_for_the_others() -> None:
    """With NCCL it would for ever: leaving the group waits for processes that wait for this one."""
    with pytest.raises(OSError, match="no room"), joined("cpu"):
        raise OSError("no room")
    assert torch.distributed.is_initialized()
    torch.distributed.destroy_process_group()
    with joined("cpu"):
        assert torch.distributed.is_initialized()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("kind", ["segmenter", "region"])
def test_what_trains_in_one_process_is_refused_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    data = write_labeled(tmp_path / "data", 0, 2, "regions" if kind == "region" else "masks")
    with pytest.raises(Failure, match="works in one process; start it without torchrun"):
        run("train", kind, "--data", data, "--out", tmp_path / "out")


def test_memory_that_does_not_suffice_is_no_traceback() -> None:
    with pytest.raises(Failure, match="out of memory; give a smaller --batch"), in_words():
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="another"), in_words():
        raise RuntimeError("another")


def test_weights_that_have_no_room_are_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"cannot be read or written: .*large"), in_words(), no_file_above(1000):
        save_file({"weights": torch.zeros(1000)}, tmp_path / "weights.safetensors")


@pytest.mark.usefixtures("group_of_one")
def test_a_batch_that_cannot_be_shared_is_no_traceback(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.ranks.ranks", lambda: 2)
    with pytest.raises(Failure, match="a batch of 5 rows cannot be shared by 2 processes"):
        vae(data, tmp_path / "out", "--batch", "5")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["vae", "segmenter"])
def test_a_loss_that_is_not_a_number_is_no_traceback(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def diverge(*_: object) -> None:
        raise FloatingPointError("the loss is nan at step 7; lower the learning rate")

    monkeypatch.setattr("models.training.vae.train", diverge)
    monkeypatch.setattr(SegmenterTraining, "advance", diverge)
    with pytest.raises(Failure, match="the loss is nan at step 7"):
        if kind == "vae":
            vae(data, tmp_path / "out")
        else:
            labeled = write_labeled(tmp_path / "labeled", 0, 3)
            run("train", "segmenter", "--data", labeled, "--out", tmp_path / "out", "--backbone", "tiny")


def test_a_run_goes_on_with_its_own_images_alone(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "own"
    vae(data, out)
    before = (out / "manifest.json").read_bytes()
    vae(data, out)
    assert (out / "manifest.json").read_bytes() == before  # a finished run that was given again changes nothing
    (data / "3.png").rename(tmp_path / "leaked.png")
    with pytest.raises(Failure, match=r"is of a run on 9 images \w{12}, this one is on 8 images \w{12}; delete it"):
        vae(data, out)
    (tmp_path / "leaked.png").rename(data / "3.png")
    said = vae(data, out, "--steps", "2", "--minutes", "2.5")
    assert said.endswith(f"next: pansynth train denoiser --data {data} --out {out} --minutes 2.5\n")
    assert json.loads((out / "manifest.json").read_text())["training"]["vae"]["steps"] == 2


def test_a_denoiser_of_another_vae_is_not_gone_on_with(data: Path, tmp_path: Path) -> None:
    make_tiny_weights(tmp_path / "own")
    checkpoint = tmp_path / "own.training" / "denoiser" / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    torch.save({"step": 1, "seconds": 0.0, "subject": "latents of VAE 0123456789ab"}, checkpoint)
    with pytest.raises(Failure, match="is of a run on latents of VAE 0123456789ab, this one is on latents of VAE"):
        run("train", "denoiser", "--data", data, "--out", tmp_path / "own", "--steps", "1", "--batch", "2")


HOLDER = """
import sys
from pathlib import Path
from cli.out import only_training

with only_training(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_trainings_do_not_write_into_one_folder(tmp_path: Path) -> None:
    out = make_tiny_weights(tmp_path / "own")
    trainings = [("vae", out), ("denoiser", out), ("segmenter", tmp_path / "new"), ("region", tmp_path / "new")]
    data = write_labeled(tmp_path / "data", 0, 1)
    (data / "regions").symlink_to(data / "masks")

    def refused(words: str) -> None:
        for kind, folder in trainings:
            with pytest.raises(Failure, match=words):
                run("train", kind, "--data", data, "--out", folder, "--learning-rate", "0")

    with ExitStack() as others:
        for folder in (out, tmp_path / "new"):
            command = [sys.executable, "-c", HOLDER, str(folder)]
            other = others.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            assert other.stdout is not None and other.stdout.readline() == b"held\n"
        refused(r"another training \(process \d+\) is at work for --out .*: stop it, or choose another --out")
    refused("rate is 0")


def test_a_disk_that_locks_no_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    with pytest.raises(Failure, match=f"{tmp_path}/own.training: its disk locks no files .*; choose another folder"):
        run("train", "vae", "--data", tmp_path, "--out", tmp_path / "own")

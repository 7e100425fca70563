"""Thousands of damaged uploads against a running service: broker, API and a worker as processes.

    python -m benchmarks.mutations --count 5000 --seed 0

Good files of every format are damaged at random places (the same for the same seed) and sent as a guide's image, as a
mask, as a whole form, into a pool and in archives. It fails at a 5xx, when a process grows or is replaced, when
something is left behind, and when the service does not do its main job afterwards.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.faults.stack import Stack, running
from tests.bad_archives import archive
from tests.bad_files import dicom_dataset, dicom_file, disc, encode, gradient
from tests.tiny import make_tiny_weights

BATCH = 20  # files to a pool import
WAYS = ("image", "mask", "form", "images", "archive")
MAX_GROWTH_BYTES = 64 << 20  # a decoder that read every format has loaded more than one that read a PNG
DAMAGE = {"head": 0.3, "bits": 0.25, "cut": 0.15, "out": 0.1, "twice": 0.05, "zeros": 0.05, "noise": 0.1}  # chances
FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}


def good_images() -> dict[str, bytes]:
    gray, deep = gradient().astype(np.uint8), gradient(top=4095)
    return {
        "PNG": encode(gray),
        "PNG, 16 bit": encode(deep),
        "PNG, colours": encode(np.dstack([gray] * 3)),
        "JPEG": encode(gray, "JPEG"),
        "TIFF": encode(gray, "TIFF"),
        "TIFF, deflate": encode(deep, "TIFF", compression="tiff_deflate"),
        "TIFF, LZW": encode(gray, "TIFF", compression="tiff_lzw"),
        "BMP": encode(gray, "BMP"),
        "DICOM": dicom_file(dicom_dataset(deep, WindowCenter=2000, WindowWidth=4000)),
        "DICOM, signed": dicom_file(dicom_dataset(deep.astype(np.int16))),
    }


def good_masks() -> dict[str, bytes]:
    mask = disc().astype(np.uint8) * np.uint8(255)
    return {
        "PNG": encode(mask),
        "PNG, 1 bit": encode(disc()),
        "PNG, colours": encode(np.dstack([mask] * 3)),
        "TIFF, LZW": encode(mask, "TIFF", compression="tiff_lzw"),
        "BMP": encode(mask, "BMP"),
        "DICOM": dicom_file(dicom_dataset(mask)),
    }


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Bits flipped, in the header or anywhere; cut off, cut out, doubled, zeroed or filled with noise."""
    found = bytearray(data)
    way = random.choice(list(DAMAGE), p=list(DAMAGE.values()))
    if way in ("head", "bits"):
        reach = min(len(found), 300 if way == "head" else len(found))
        for place in random.integers(0, reach * 8, random.integers(1, 9)):
            found[place // 8] ^= 1 << place % 8
        return bytes(found)
    start = int(random.integers(0, len(found)))
    end = min(len(found), start + int(random.integers(1, 200)))
    middle = {"twice": found[start:end] * 2, "zeros": bytes(end - start), "noise": random.bytes(end - start)}
    return bytes(found[:start]) if way == "cut" else bytes(found[:start] + middle.get(way, b"") + found[end:])


def form_of(image: bytes, mask: bytes, pool: str = "default") -> bytes:
    """A guide's form, byte by byte."""
    file = b'--xyz\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n%s\r\n'
    text = b'--xyz\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    texts = text % (b"top_k", b"1") + text % (b"pool", pool.encode())
    return texts + file % (b"image", image) + file % (b"mask", mask) + b"--xyz--\r\n"


class Sender:
    """Sends one damaged file after the other in one of WAYS, and keeps count of the answers."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.images, self.masks = list(good_images().values()), list(good_masks().values())
        self.answers: dict[str, Counter[str]] = {way: Counter() for way in WAYS}
        self.imports: list[str] = []
        self.batches: dict[str, list[bytes]] = {"images": [], "archive": []}

    def send(self, number: int, random: np.random.Generator) -> None:
        way, turn = WAYS[number % len(WAYS)], number // len(WAYS)
        image, mask = self.images[turn % len(self.images)], self.masks[turn % len(self.masks)]
        if way == "image":
            self._guide(way, form_of(damaged(image, random), self.masks[0]))
        elif way == "mask":
            self._guide(way, form_of(self.images[0], damaged(mask, random)))
        elif way == "form":
            self._guide(way, damaged(form_of(image, mask), random))
        else:
            self.batches[way].append(damaged(image, random))
            if len(self.batches[way]) == BATCH:
                self._import(way, self.batches[way], random)
                self.batches[way] = []

    def _guide(self, way: str, body: bytes) -> None:
        answer = self.client.post("/synthesize", content=body, headers=FORM)
        self._count(way, answer)
        if answer.status_code == 202:
            links = answer.json()["links"]
            self.client.post(links["cancel"])
            self.client.delete(links["self"])

    def _import(self, way: str, batch: list[bytes], random: np.random.Generator) -> None:
        if way == "images":
            files = [("images", (f"{n}", data)) for n, data in enumerate(batch)]
        else:
            packed = archive(*((f"{n}.png", data) for n, data in enumerate(batch)))
            files = [("archive", ("a.zip", packed if random.random() < 0.5 else damaged(packed, random)))]
        answer = self.client.post("/pools/damaged/images", files=files)
        self._count(way, answer, len(batch))
        if answer.status_code == 202:
            self.imports.append(answer.json()["links"]["self"])

    def _count(self, way: str, answer: httpx.Response, files: int = 1) -> None:
        kind = "taken" if answer.status_code == 202 else "refused" if answer.status_code < 500 else "5xx"
        self.answers[way][kind] += files
        if kind == "refused":
            assert answer.headers["Content-Type"] == "application/problem+json", answer.text


def wait_for(client: httpx.Client, address: str) -> dict[str, Any]:
    while True:
        job: dict[str, Any] = client.get(address).json()
        if job["finished_at"]:
            return job
        time.sleep(0.1)


def do_main_job(client: httpx.Client) -> bool:
    """A good guide against good pool images."""
    pictures = [encode((gradient(96, 160 + n) // 2 + 20 * n).astype(np.uint8)) for n in range(3)]
    client.post("/pools", json={"name": "good"})
    files = [("images", (f"{n}.png", data)) for n, data in enumerate(pictures)]
    wait_for(client, client.post("/pools/good/images", files=files).json()["links"]["self"])
    guide = {"image": ("a.png", pictures[0]), "mask": ("b.png", encode(disc(96, 160).astype(np.uint8)))}
    fields = {"pool": "good", "top_k": "3", "steps": "2", "start_timestep": "2"}
    job = client.post("/synthesize", files=guide, data=fields).json()
    job = wait_for(client, job["links"]["self"])
    return job["status"] == "succeeded" and client.get(job["links"]["dataset"]).content.startswith(b"PK")


def memory(stack: Stack) -> dict[str, tuple[int, int]]:
    """Process id and resident bytes of the API, of the worker that works, and of their decoders."""
    found = {"API": psutil.Process(stack.processes["api"].pid)}
    if (worker := stack.working("worker-0")) is not None:
        found["worker"] = worker
    decoders = {
        f"decoder {number} of the {name}": child
        for name, one in found.items()
        for number, child in enumerate(one.children(), start=1)
    }
    return {name: (one.pid, one.memory_info().rss) for name, one in (found | decoders).items()}


def leftovers(folder: Path) -> list[str]:
    """Files as they came, that should be gone."""
    found = [*folder.glob("blobs/jobs/*/uploads/*"), *folder.glob("blobs/jobs/*/archive.zip")]
    return [f"left behind: {path}" for path in found]


def run(count: int, seed: int, folder: Path) -> int:
    """Returns how many things went wrong."""
    weights = make_tiny_weights(folder / "weights" / "default").parent
    with (
        running(folder / "data", weights, workers=1) as stack,
        httpx.Client(base_url=stack.url, timeout=120, trust_env=False) as client,
    ):
        client.post("/pools", json={"name": "damaged"})
        wait_for(client, _import_good(client, "default"))
        wrong = [] if do_main_job(client) else ["the main job fails before anything is sent"]
        sender = Sender(client)
        before: dict[str, tuple[int, int]] = {}
        for number in range(count):
            sender.send(number, np.random.default_rng([seed, number]))
            if number == count // 5:  # by now each process has loaded what it needs
                before = memory(stack)
        outcomes = Counter(wait_for(client, address)["status"] for address in sender.imports)
        after = memory(stack)
        wrong += leftovers(folder / "data")
        client.delete("/pools/good")
        if not do_main_job(client):
            wrong.append("the main job fails afterwards")
    report(sender, outcomes, before, after)
    wrong += [f"{answers['5xx']} answers 5xx by {way}" for way, answers in sender.answers.items() if answers["5xx"]]
    wrong += [
        f"{name} grew or was replaced"
        for name, (pid, size) in before.items()
        if name not in after or after[name][0] != pid or after[name][1] - size > MAX_GROWTH_BYTES
    ]
    print("\n".join(wrong) if wrong else "nothing went wrong; the main job is done as before")
    return len(wrong)


def _import_good(client: httpx.Client, pool: str) -> str:
    files = [("images", (name, data)) for name, data in good_images().items()]
    address: str = client.post(f"/pools/{pool}/images", files=files).json()["links"]["self"]
    return address


def report(
    sender: Sender,
    outcomes: Counter[str],
    before: dict[str, tuple[int, int]],
    after: dict[str, tuple[int, int]],
) -> None:
    print("| sent as | files | taken | refused | 5xx |\n|---|---:|---:|---:|---:|")
    for way, answers in sender.answers.items():
        print(f"| {way} | {answers.total()} | {answers['taken']} | {answers['refused']} | {answers['5xx']} |")
    print(f"\nimports: {dict(outcomes)}\n\n| process | MB after a fifth | MB at the end |\n|---|---:|---:|")
    for name, (_, size) in after.items():
        start = before.get(name, (0, 0))[1]
        print(f"| {name} | {start / 1e6:.0f} | {size / 1e6:.0f} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pansynth-mutations-") as folder:
        wrong = run(given.count, given.seed, Path(folder))
    print(f"{given.count} files in {time.monotonic() - started:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

"""What a client does while the service is in trouble: it sends again, with the same Idempotency-Key, and waits."""

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx

from benchmarks.faults.stack import PATIENCE_SECONDS, Stack
from cli.client import ENDED
from models.phantoms import Phantom, phantoms
from models.pixels import image_png, mask_png

SYNTHESIS, EVALUATION, IMPORT = "synthesis", "evaluation", "import"
KINDS = (SYNTHESIS, EVALUATION, IMPORT)
PATHS = {SYNTHESIS: "/synthesize", EVALUATION: "/evaluations", IMPORT: "/pools/imported/images"}
FIELDS = {
    SYNTHESIS: {"pool": "soak", "top_k": "3", "seed": "11", "steps": "40", "start_timestep": "40"},
    EVALUATION: {"arms": "real,real+synthetic", "steps": "12", "seeds": "1", "backbone": "tiny", "batch": "2"},
    IMPORT: {},
}

Files = list[tuple[str, tuple[str, bytes, str]]]


class Broken(Exception):
    """Something that must be true after a fault is not."""


@dataclass
class Client:
    """Submits jobs of one `kind` until it is given another, and remembers every answer that a fault does not excuse.

    job_seconds: about what a job of this kind takes, from which the moments of faults are drawn. synthesis: the id of
    one that stays, for evaluations to train on.
    """

    stack: Stack
    kind: str = SYNTHESIS
    job_seconds: float = 3.0
    synthesis: str = ""
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        made = list(phantoms(seed=700_001, count=18))
        guides, pool, test, others = made[:2], made[2:10], made[10:12], made[12:]
        self.pool: Files = [("images", (f"{n}.png", image_png(p.image), "image/png")) for n, p in enumerate(pool)]
        self.files: dict[str, Files] = {
            SYNTHESIS: labeled("", guides),
            EVALUATION: labeled("real_", guides) + labeled("test_", test),
            IMPORT: [("archive", ("more.zip", archive(others), "application/zip"))],
        }

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Again and again until there is an answer other than 503. Raises Broken after five minutes without."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            with suppress(httpx.TransportError):
                answer = self.stack.http.request(method, self.stack.url + path, timeout=40, **request)
                if answer.status_code >= 500 and answer.status_code != 503:
                    self.wrong.append(f"{method} {path} -> {answer.status_code}")
                elif answer.status_code != 503:
                    return answer
            self.stack.tend()
            time.sleep(0.1)
        raise Broken(f"no answer to {method} {path}")

    def import_pool(self) -> None:
        self.ask("POST", "/pools", json={"name": "soak"})
        job = self.ask("POST", "/pools/soak/images", files=self.pool).json()
        if self.wait(job["id"])["status"] != "succeeded":
            raise Broken("the pool was not imported")
        self.ask("DELETE", f"/jobs/{job['id']}")

    def submission(self, key: str) -> httpx.Request:
        """The request of a job; it goes out as often as it must."""
        fields = FIELDS[self.kind] | {"webhook": self.stack.receiver.url}
        if self.kind == EVALUATION:
            fields["synthesis"] = self.synthesis
        headers, url = {"Idempotency-Key": key}, self.stack.url + PATHS[self.kind]
        return httpx.Request("POST", url, data=fields, files=self.files[self.kind], headers=headers)

    def submit(self, key: str = "") -> str:
        if self.kind == IMPORT:
            self.ask("POST", "/pools", json={"name": "imported"})
        request = self.submission(key or uuid4().hex)
        answer = self.ask("POST", request.url.path, content=request.read(), headers=dict(request.headers))
        if answer.status_code not in (200, 202):
            raise Broken(f"POST {request.url.path} -> {answer.status_code} {answer.text[:200]}")
        return str(answer.json()["id"])

    def look(self, job_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.ask("GET", f"/jobs/{job_id}").json()
        return body

    def wait(self, job_id: str) -> dict[str, Any]:
        """The job at its end. Raises Broken when there is none within five minutes."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            job = self.look(job_id)
            if job["status"] in ENDED:
                return job
            self.stack.tend()
            time.sleep(0.1)
        raise Broken(f"the job has not ended: {job['status']}, {job['stage']}, {job['progress']}")

    def result(self, job_id: str) -> str:
        """The sha256 of all that came of the job. Raises Broken where it ended otherwise."""
        job = self.wait(job_id)
        if job["status"] != "succeeded":
            raise Broken(f"the job has {job['status']}: {job['error']}")
        times = [datetime.fromisoformat(job[name]) for name in ("created_at", "started_at", "finished_at")]
        if times != sorted(times):
            raise Broken(f"the job was created, begun and ended at {', '.join(map(str, times))}")
        digest = hashlib.sha256()
        if self.kind == IMPORT:
            digest.update(json.dumps([job[name] for name in ("stored", "duplicates", "rejected", "progress")]).encode())
        for path in self.made(job):
            digest.update(self.ask("GET", path).content)
        return digest.hexdigest()

    def made(self, job: dict[str, Any]) -> list[str]:
        """The addresses of what came of a job."""
        if self.kind == IMPORT:
            images = self.ask("GET", "/pools/imported/images").json()["items"]
            # Workers add them in any order, and of two files with the same pixels the first to come gives the name.
            return [image["links"]["self"] for image in sorted(images, key=lambda image: str(image["sha256"]))]
        if self.kind == EVALUATION:
            return [job["links"][name] for name in ("report", "csv", "md", "png")]
        return [job["links"]["dataset"]]

    def check_told(self, job_id: str) -> None:
        """Its receiver, which takes signed messages alone, was told how the job ended. Raises Broken."""
        status = self.wait(job_id)["status"]
        if not self.stack.until(lambda: self.look(job_id)["webhook"]["status"] != "pending"):
            raise Broken("nobody was told of the job's end within five minutes")
        told = [one for one in self.stack.receiver.received if one.headers["webhook-id"] == f"msg_{job_id}"]
        said = {json.loads(one.body)["data"]["status"] for one in told}
        if said != {status}:
            raise Broken(f"the job has {status}, and its receiver was told {said or 'nothing'}")

    def clear(self) -> None:
        """Delete all but what stays, as their owner would, when their receivers have been told."""
        for job in self.ask("GET", "/jobs").json()["items"]:
            if job["id"] != self.synthesis:
                self.ask("POST", f"/jobs/{job['id']}/cancel")
                self.check_told(job["id"])
                self.ask("DELETE", f"/jobs/{job['id']}")
        self.ask("DELETE", "/pools/imported")
        self.stack.receiver.received.clear()


def labeled(prefix: str, made: Sequence[Phantom]) -> Files:
    """Images and masks as the fields `image` and `mask` with a prefix."""
    return [
        part
        for n, p in enumerate(made)
        for part in (
            (f"{prefix}image", (f"{prefix}{n}.png", image_png(p.image), "image/png")),
            (f"{prefix}mask", (f"{prefix}{n}-mask.png", mask_png(p.mask), "image/png")),
        )
    ]


def archive(made: Sequence[Phantom]) -> bytes:
    """A zip of images, with one of them twice and one file that is no image."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for n, p in enumerate([*made, made[0]]):
            file.writestr(f"{n}.png", image_png(p.image))
        file.writestr("notes.png", b"no image")
    return content.getvalue()

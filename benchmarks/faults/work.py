"""What a client does while the service is in trouble: it sends again, with the same Idempotency-Key, and waits."""

import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from benchmarks.faults.stack import PATIENCE_SECONDS, Stack
from models.phantoms import phantoms
from models.pixels import image_png, mask_png

FIELDS = {"pool": "soak", "top_k": "3", "seed": "11", "steps": "40", "start_timestep": "40"}
ENDED = ("succeeded", "failed", "cancelled")


class Broken(Exception):
    """Something that must be true after a fault is not."""


@dataclass
class Client:
    """Remembers every answer that a fault does not excuse."""

    stack: Stack
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        made = list(phantoms(seed=700_001, count=10))
        self.pool = [("images", (f"{n}.png", image_png(p.image), "image/png")) for n, p in enumerate(made[2:])]
        self.guides = [
            part
            for n, p in enumerate(made[:2])
            for part in (
                ("image", (f"g{n}.png", image_png(p.image), "image/png")),
                ("mask", (f"m{n}.png", mask_png(p.mask), "image/png")),
            )
        ]

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Again and again until there is an answer other than 503. Raises Broken after five minutes without."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            with suppress(httpx.TransportError):
                answer = httpx.request(method, self.stack.url + path, timeout=40, trust_env=False, **request)
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
        headers = {"Idempotency-Key": key}
        return httpx.Request("POST", self.stack.url + "/synthesize", data=FIELDS, files=self.guides, headers=headers)

    def submit(self, key: str = "") -> str:
        headers = {"Idempotency-Key": key or uuid4().hex}
        answer = self.ask("POST", "/synthesize", data=FIELDS, files=self.guides, headers=headers)
        if answer.status_code not in (200, 202):
            raise Broken(f"POST /synthesize -> {answer.status_code} {answer.text[:200]}")
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

    def dataset(self, job_id: str) -> str:
        """The downloaded zip's sha256. Raises Broken where the job ended otherwise."""
        job = self.wait(job_id)
        if job["status"] != "succeeded":
            raise Broken(f"the job has {job['status']}: {job['error']}")
        answer = self.ask("GET", f"/jobs/{job_id}/dataset")
        return hashlib.sha256(answer.content).hexdigest()

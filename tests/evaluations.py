"""Evaluations as a client sends them, and finished syntheses to evaluate."""

from functools import cache
from typing import Any

import httpx

from models import pixels
from models.phantoms import Phantom, phantoms
from tests.serving import finish, submit

Part = tuple[str, tuple[str, bytes, str]]


@cache
def radiographs() -> list[Phantom]:
    return list(phantoms(seed=901, count=4))


def labeled_files(name: str, first: int, count: int) -> list[Part]:
    """Multipart parts of the set `real` or `test`."""
    parts: list[Part] = []
    for number, phantom in enumerate(radiographs()[first : first + count]):
        image, mask = pixels.image_png(phantom.image), pixels.mask_png(phantom.mask)
        parts.append((f"{name}_image", (f"{name}-{number}.png", image, "image/png")))
        parts.append((f"{name}_mask", (f"{name}-{number}-mask.png", mask, "image/png")))
    return parts


def both_sets() -> list[Part]:
    return labeled_files("real", 0, 2) + labeled_files("test", 2, 2)


def send(client: httpx.Client, synthesis: str, files: list[Part] | None = None, **fields: Any) -> httpx.Response:
    data = {"synthesis": synthesis, "backbone": "tiny", "steps": "2", "seeds": "2", "batch": "2"} | fields
    return client.post("/evaluations", data=data, files=both_sets() if files is None else files)


def finished_synthesis(client: httpx.Client, service: Any, pool: str, **fields: str) -> str:
    """The id of a synthesis of two samples, brought to its end by the workers' verbs."""
    submit(client, pool, **fields)
    return finish(service, pool, 2, b"zip")

"""Damaged uploads, the short form of `python -m benchmarks.mutations`: whatever comes, the service stands."""

import httpx
import numpy as np
import pytest

from app.service import Service
from benchmarks.mutations import FORM, damaged, form_of, good_images, good_masks
from tests.serving import stored, submit

FILES = 120


@pytest.mark.parametrize("way", ["image", "mask", "form"])
def test_damaged_uploads_are_taken_or_refused_and_leave_nothing(
    client: httpx.Client, service: Service, pool: str, way: str
) -> None:
    before = stored(service)
    images, masks = list(good_images().values()), list(good_masks().values())
    refused = 0
    for number in range(FILES):
        random = np.random.default_rng([1, number])
        image, mask = images[number % len(images)], masks[number % len(masks)]
        if way == "image":
            body = form_of(damaged(image, random), mask, pool)
        elif way == "mask":
            body = form_of(images[0], damaged(mask, random), pool)
        else:
            body = damaged(form_of(image, mask, pool), random)
        answer = client.post("/synthesize", content=body, headers=FORM)
        assert answer.status_code == 202 or 400 <= answer.status_code < 500, answer.text
        if answer.status_code == 202:
            links = answer.json()["links"]
            assert client.post(links["cancel"]).status_code == 202
            assert client.delete(links["self"]).status_code == 204
        else:
            refused += 1
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["detail"]
    assert refused > FILES / 10
    assert stored(service) == before
    assert submit(client, pool)["status"] == "queued"

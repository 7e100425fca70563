import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.presets import PRESETS
from app.queries import guides
from app.service import Service
from app.settings import Settings
from models import pixels
from tests import bad_files
from tests.serving import fill_pool, guide_files, refused, serving, stored, submit, write_weights
from tests.waiting import decoder_processes

Part = tuple[str, tuple[str, bytes, str]]


def refused_fields(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    return [error["field"] for error in answer.json()["errors"]]


def test_a_job_is_accepted_with_its_address(client: httpx.Client, pool: str) -> None:
    answer = client.post("/synthesize", data={"pool": pool, "top_k": "2"}, files=guide_files(2))
    assert answer.status_code == 202
    assert answer.headers["Location"] == answer.json()["links"]["self"]
    assert int(answer.headers["Retry-After"]) > 0
    assert client.get(answer.headers["Location"]).json() == answer.json()
    assert answer.json()["progress"] == {"done": 0, "total": 4}


def test_what_is_not_given_comes_from_the_preset(client: httpx.Client, pool: str) -> None:
    parameters = submit(client, pool, preset="harmonize", steps="10", reblend="false")["parameters"]
    expected = asdict(PRESETS["harmonize"]) | {"steps": 10, "reblend": False}
    others = {"pool": pool, "top_k": 2, "preset": "harmonize", "region": "none"}
    others |= {"selection": "ssim", "method": "diffusion"}
    assert parameters == expected | others | {"seed": 0, "model": "default", "guides": ["guide-0.png"]}


@pytest.mark.parametrize(
    ("field", "sent", "meant"),
    [
        ("reblend", "True", True),  # as requests sends a Python bool
        ("reblend", "on", True),  # as an HTML form sends a checkbox
        ("reblend", "NO", False),
        ("top_k", "  2 ", 2),
        ("max_seam", "0.30000000000000004", 0.1 + 0.2),
        ("max_seam", "1e-05", 1e-05),
        ("max_seam", ".5", 0.5),
    ],
)
def test_a_value_may_be_written_as_programs_write_it(
    client: httpx.Client, pool: str, field: str, sent: str, meant: object
) -> None:
    answer = client.post("/synthesize", data={"pool": pool, "top_k": "1"} | {field: sent}, files=guide_files())
    assert answer.json()["parameters"][field] == meant, answer.text


def test_the_largest_seed_stays_exact(client: httpx.Client, pool: str) -> None:
    assert submit(client, pool, seed=str(2**63 - 1))["parameters"]["seed"] == 2**63 - 1


def test_guides_are_stored_at_the_working_size_in_their_order(
    client: httpx.Client, service: Service, pool: str
) -> None:
    job = submit(client, pool, guides=3)
    with service.database.read() as session:
        rows = guides(session, job["id"])
    assert [(row.name, row.height, row.width) for row in rows] == [(f"guide-{n}.png", 96 + n, 160) for n in range(3)]
    for row in rows:
        image = service.blobs.get(f"jobs/{job['id']}/guides/{row.image_sha256}.png")
        mask = service.blobs.get(f"jobs/{job['id']}/guides/{row.mask_sha256}.png")
        assert pixels.sha256(image) == row.image_sha256
        assert pixels.image_from_png(image).shape == pixels.mask_from_png(mask).shape == (256, 512)


def test_guides_to_be_cropped_are_stored_at_their_own_size(client: httpx.Client, service: Service, pool: str) -> None:
    job = submit(client, pool, guides=2, region="crop")
    assert job["parameters"]["region"] == "crop"
    with service.database.read() as session:
        rows = guides(session, job["id"])
    assert stored(service)[1] >= {f"jobs/{job['id']}/originals/{row.image_sha256}.png" for row in rows}
    for number, row in enumerate(rows):
        image = service.blobs.get(f"jobs/{job['id']}/originals/{row.image_sha256}.png")
        mask = service.blobs.get(f"jobs/{job['id']}/originals/{row.mask_sha256}.png")
        assert pixels.full_image_from_png(image).shape == (96 + number, 160)
        assert pixels.full_mask_from_png(mask).shape == (96 + number, 160)
        sent = pixels.read_image(guide_files(2)[2 * number][1][1])
        assert (pixels.full_image_from_png(image) == sent).all(), "nothing of 8 bits is lost"
        assert row.crop is None


def with_file(role: str, data: bytes, name: str = "guide.png") -> list[Part]:
    """A good guide whose image or mask is replaced."""
    return [
        (field, (name if field == role else given, data if field == role else content, kind))
        for field, (given, content, kind) in guide_files()
    ]


BAD_FILES = [
    (role, what)
    for role, builder in bad_files.BUILDERS.items()
    for what, upload in builder().items()
    if upload.error is not None
]


@pytest.mark.parametrize(("role", "what"), BAD_FILES, ids=lambda part: part.replace(" ", "-"))
def test_a_bad_file_is_refused_by_its_field_and_leaves_nothing(
    client: httpx.Client, service: Service, pool: str, role: str, what: str
) -> None:
    before = stored(service)
    data = bad_files.BUILDERS[role]()[what].data
    answer = client.post("/synthesize", data={"pool": pool, "top_k": "1"}, files=with_file(role, data))
    assert refused_fields(answer) == [role]
    assert "guide.png" in answer.json()["errors"][0]["detail"]
    assert stored(service) == before
    assert client.get("/livez").status_code == 200


Change = Callable[[list[Part]], list[Part]]

WRONG: dict[str, tuple[dict[str, str], Change, list[str]]] = {
    "no files": ({}, lambda _: [], ["image", "mask"]),
    "no mask": ({}, lambda parts: parts[:1], ["mask"]),
    "two images and one mask": ({}, lambda parts: [parts[0], *parts], ["mask"]),
    "1,001 guides": (
        {},
        lambda _: [(name, ("a.png", b"x", "image/png")) for name in ("image", "mask")] * 1001,
        ["image"],
    ),
    "a mask of another size": (
        {},
        lambda parts: [parts[0], guide_files(2)[3]],
        ["mask"],
    ),
    "a path in the file name": ({}, lambda parts: renamed(parts, "../../etc/passwd"), ["image"]),
    "a file name of 10,000 characters": ({}, lambda parts: renamed(parts, "a" * 10_000), ["image"]),
    "an unknown pool": ({"pool": "nowhere"}, lambda parts: parts, ["pool"]),
    "a pool with a NUL": ({"pool": "a\0"}, lambda parts: parts, ["pool"]),
    "an empty pool": ({"pool": "default"}, lambda parts: parts, ["pool"]),
    "an unknown model": ({"model": "../default"}, lambda parts: parts, ["model"]),
    "top_k larger than the pool": ({"top_k": "4"}, lambda parts: parts, ["top_k"]),
    "more steps than the start": ({"steps": "26"}, lambda parts: parts, ["steps"]),
    "a misspelt field": ({"topk": "3"}, lambda parts: parts, ["topk"]),
    "two faults": ({"preset": "best", "sampler": "euler"}, lambda parts: parts, ["preset", "sampler"]),
    "an image as text": ({"image": "a.png"}, lambda parts: parts[1:], ["image"]),
    "a parameter as file": ({}, lambda parts: [*parts, ("seed", ("s", b"1", "text/plain"))], ["seed"]),
} | {
    f"{field} {value!r}": ({field: value}, lambda parts: parts, [field])
    for field, values in {
        "top_k": ["0", "-1", "1001", "abc", "1.5", "", " ", "1_0", "1 0", "２", "9" * 40, "0x1"],
        "steps": ["0", "1001", "x"],
        "start_timestep": ["1001", "0"],
        "dilation": ["-1", "9"],
        "seed": ["-1", str(2**63), "9" * 4000],
        "reblend": ["maybe", "", "2"],
        "selection": ["best"],
        "model": [
            "..",
            "/etc",
            "default/",
            "./default",
            "default\\",
            "models/weights/default",
            "%2e%2e",
            "Default",
            "",
        ],
        "method": ["gan"],
    }.items()
    for value in values
}


def renamed(parts: list[Part], name: str) -> list[Part]:
    (field, (_, data, kind)), *rest = parts
    return [(field, (name, data, kind)), *rest]


def raw_form(fields: dict[str, str], parts: list[Part]) -> tuple[bytes, dict[str, str]]:
    """A multipart body made by hand: httpx would escape what a hostile client does not."""
    body = b"".join(
        f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    for field, (name, data, kind) in parts:
        head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: {kind}'
        body += f"--xyz\r\n{head}\r\n\r\n".encode() + data + b"\r\n"
    return body + b"--xyz--\r\n", {"Content-Type": "multipart/form-data; boundary=xyz"}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_request_names_its_fields_and_leaves_nothing(
    client: httpx.Client, service: Service, pool: str, what: str
) -> None:
    fields, change, expected = WRONG[what]
    before = stored(service)
    body, headers = raw_form({"pool": pool, "top_k": "1"} | fields, change(guide_files()))
    answer = client.post("/synthesize", content=body, headers=headers)
    assert refused_fields(answer) == expected
    assert stored(service) == before
    assert client.get("/livez").status_code == 200


def test_a_mask_in_a_format_that_is_not_read_is_not_led_to_jpeg(client: httpx.Client, pool: str) -> None:
    mask = ("mask", ("mask.gif", bad_files.encode(bad_files.disc().astype("uint8"), "GIF"), "image/gif"))
    answer = client.post("/synthesize", data={"pool": pool, "top_k": "1"}, files=[guide_files()[0], mask])
    assert refused_fields(answer) == ["mask"]
    assert answer.json()["errors"][0]["detail"].endswith("is a GIF file; save it as PNG")


def test_a_pool_of_one_image_leaves_one_choice(client: httpx.Client, service: Service) -> None:
    fill_pool(service, "single", 1)
    answer = client.post("/synthesize", data={"pool": "single"}, files=guide_files())
    assert answer.json()["errors"][0]["detail"] == "is 5, but pool 'single' has 1 image; choose 1"


def test_a_refusal_names_the_values_and_the_remedy(client: httpx.Client, pool: str) -> None:
    def detail(**data: str) -> Any:
        data = {"pool": pool, "top_k": "1"} | data
        return client.post("/synthesize", data=data, files=guide_files()).json()["errors"][0]["detail"]

    assert detail(top_k="4") == "is 4, but pool 'held' has 3 images; choose 1 to 3"
    assert detail(pool="default").endswith("POST /pools/default/images), or wait for their import")
    assert detail(top_k="") == "is empty; give it a value or leave it out"
    assert detail(reblend="maybe") == "should be true or false; got 'maybe'"
    assert detail(top_k="0") == "should be greater than or equal to 1; got 0"
    assert "is 26, more than start_timestep, which is 25" in detail(steps="26")
    assert "available: default" in detail(model="other")
    assert "make it with `pansynth pool import` or POST /pools" in detail(pool="other")


def test_weights_whose_denoiser_is_not_trained_yet_are_refused(
    client: httpx.Client, settings: Settings, pool: str
) -> None:
    assert settings.weights_dir is not None
    write_weights(settings.weights_dir, "half", ["vae"])
    answer = client.post("/synthesize", data={"pool": pool, "top_k": "1", "model": "half"}, files=guide_files())
    assert refused_fields(answer) == ["model"]
    assert "model 'half' has no denoiser yet" in answer.json()["errors"][0]["detail"]


def test_every_bad_guide_is_named_by_its_place(client: httpx.Client, pool: str) -> None:
    parts = guide_files(3)
    parts[0] = ("image", ("first.png", b"x", "image/png"))
    parts[5] = ("mask", ("last.png", b"x", "image/png"))
    answer = client.post("/synthesize", data={"pool": pool, "top_k": "1"}, files=parts)
    assert refused_fields(answer) == ["image", "mask"]
    first, last = (error["detail"] for error in answer.json()["errors"])
    assert first.startswith("file 1 of 3, 'first.png': the file")
    assert last.startswith("file 3 of 3, 'last.png': the file")


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "text/plain", None])
def test_another_content_type_is_not_supported(client: httpx.Client, kind: str | None) -> None:
    answer = client.post("/synthesize", content=b"pool=held", headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 415
    assert answer.json()["errors"][0]["field"] == "Content-Type"


def test_the_same_key_and_content_is_the_same_job(client: httpx.Client, service: Service, pool: str) -> None:
    def send() -> httpx.Response:
        request = {"data": {"pool": pool, "top_k": "1"}, "files": guide_files()}
        return client.post("/synthesize", headers={"Idempotency-Key": "once"}, **request)

    first = send()
    after_first = stored(service)
    second = send()
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json() == first.json()
    assert stored(service) == after_first


def test_a_key_stays_with_its_job_until_that_is_deleted(client: httpx.Client, pool: str) -> None:
    def send() -> httpx.Response:
        request = {"data": {"pool": pool, "top_k": "1"}, "files": guide_files()}
        return client.post("/synthesize", headers={"Idempotency-Key": "once"}, **request)

    first = send().json()
    client.post(first["links"]["cancel"])
    again = send()
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (200, first["id"], "cancelled")
    client.delete(first["links"]["self"])
    anew = send()
    assert (anew.status_code, anew.json()["status"]) == (202, "queued")
    assert anew.json()["id"] != first["id"]


def test_the_same_key_with_other_content_is_refused(client: httpx.Client, service: Service, pool: str) -> None:
    key = {"Idempotency-Key": "once"}
    client.post("/synthesize", data={"pool": pool, "top_k": "1"}, files=guide_files(), headers=key)
    before = stored(service)
    answer = client.post("/synthesize", data={"pool": pool, "top_k": "2"}, files=guide_files(), headers=key)
    assert refused_fields(answer) == ["Idempotency-Key"]
    assert stored(service) == before


@pytest.mark.parametrize("key", ["", "a" * 256, "a b", "ä"])
def test_a_key_of_another_form_is_refused(client: httpx.Client, pool: str, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = client.post("/synthesize", data={"pool": pool}, files=guide_files(), headers=headers)
    assert refused_fields(answer) == ["Idempotency-Key"]
    assert "without spaces" in answer.json()["detail"]


def test_two_keys_on_one_request_are_refused(client: httpx.Client, pool: str) -> None:
    headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "other")]
    answer = client.post("/synthesize", headers=headers, data={"pool": pool, "top_k": "1"}, files=guide_files())
    assert refused(answer) == {"Idempotency-Key": "is given 2 times; give it once"}


def test_a_full_queue_asks_to_come_back(client: httpx.Client, service: Service, pool: str) -> None:
    for _ in range(5):
        submit(client, pool)
    before = stored(service)
    answer = client.post("/synthesize", data={"pool": pool, "top_k": "1"}, files=guide_files())
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert stored(service) == before


def test_the_presets_are_those_of_the_readme(client: httpx.Client) -> None:
    paper = {"steps": 25, "start_timestep": 25, "sampler": "ddpm", "dilation": 1, "restore_background": False}
    added = ("align", "match_statistics", "transfer_detail", "reblend", "hold_anatomy")
    harmonize = paper | dict.fromkeys(added, True) | {"start_timestep": 250}
    assert client.get("/presets").json() == {"paper": paper | dict.fromkeys(added, False), "harmonize": harmonize}


def test_the_form_is_described_for_the_reference(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/synthesize"]["post"]
    schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert schema["required"] == ["image", "mask"]
    assert schema["properties"]["image"]["items"]["format"] == "binary"
    assert schema["properties"]["top_k"]["maximum"] == 1000
    dilation = schema["properties"]["dilation"]
    assert [dilation.get(name) for name in ("type", "minimum", "maximum")] == ["integer", 0, 8]


def test_the_document_has_what_a_generated_client_needs(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    submit, get, dataset = (
        document["paths"][path][method]
        for path, method in (("/synthesize", "post"), ("/jobs/{job_id}", "get"), ("/jobs/{job_id}/dataset", "get"))
    )
    assert [operation["operationId"] for operation in (submit, get, dataset)] == [
        "synthesize",
        "get_job",
        "get_dataset",
    ]
    assert {"Location", "Retry-After"} <= submit["responses"]["202"]["headers"].keys()
    assert "Retry-After" in submit["responses"]["429"]["headers"]
    assert "255" in submit["parameters"][0]["description"], "what a key may be"
    assert dataset["responses"]["206"]["content"]["application/zip"]["schema"]["format"] == "binary"
    assert {"200", "206", "304", "404", "409", "416"} <= dataset["responses"].keys()
    rank = document["components"]["schemas"]["SampleBody"]["properties"]["rank"]
    assert "selection=random" in rank["description"], "where 1 is not the most similar"
    problem = get["responses"]["404"]["content"]["application/problem+json"]["schema"]["$ref"]
    assert set(document["components"]["schemas"][problem.rsplit("/", 1)[1]]["required"]) > {"type", "status", "detail"}


def test_a_pool_as_large_as_top_k_is_enough(client: httpx.Client, service: Service) -> None:
    fill_pool(service, "exact", 2)
    assert submit(client, "exact", top_k=2)["progress"]["total"] == 2


def test_an_api_that_stops_waits_for_no_file_and_has_it_sent_again(settings: Settings, tmp_path: Path) -> None:
    others = decoder_processes()
    with ThreadPoolExecutor(1) as threads:
        with serving(settings.model_copy(update={"data_dir": tmp_path})) as served:
            fill_pool(served.service, "held", 3)
            submit(served.client, "held")
            for decoder in decoder_processes() - others:
                decoder.suspend()
            url = f"http://127.0.0.1:{served.port}/synthesize"
            given = {"data": {"pool": "held", "top_k": "1"}, "files": guide_files(), "timeout": 300}
            sent = threads.submit(lambda: httpx.post(url, **given))
            with pytest.raises(TimeoutError):
                sent.result(1)
            began = time.monotonic()
        assert time.monotonic() - began < 30
        assert sent.result().status_code == 503
    assert decoder_processes() == others

"""The OpenAPI document says what the API does: schemathesis makes requests from it and checks every answer."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import positive_data_acceptance

from tests.serving import Served, empty, fill_pool, finish, submit

POOL = "held"
BEYOND_THE_SCHEMA = [positive_data_acceptance]  # that a pool exists, a cursor is ours, a file is a radiograph
FEW = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def finished(running: Served) -> Iterator[str]:
    """The id of a job that has succeeded, from a pool of three images."""
    fill_pool(running.service, POOL, 3)
    submit(running.client, POOL)
    yield finish(running.service, POOL, 2, b"PK, a dataset")
    empty(running.service)


def test_every_parameter_and_field_is_described(running: Served) -> None:
    document = running.client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                assert parameter.get("description"), f"{parameter['name']} of {path}"
            for body in operation.get("requestBody", {}).get("content", {}).values():
                name = body["schema"].get("$ref", "").rpartition("/")[2]
                schema = document["components"]["schemas"][name] if name else body["schema"]
                for field, described in schema["properties"].items():
                    assert described.get("description"), f"{field} of {path}"


def test_a_client_is_not_told_to_send_a_null_where_there_is_none(running: Served) -> None:
    document = running.client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data", {}).get("schema", {})
            sent = {parameter["name"]: parameter["schema"] for parameter in operation.get("parameters", [])}
            for name, schema in (sent | form.get("properties", {})).items():
                assert schema.get("type"), f"{name} of {path} is {schema}"


def test_a_generated_function_takes_the_parts_of_an_address_in_their_order(running: Served) -> None:
    document = running.client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            parts = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"]
            assert parts == re.findall("{(.*?)}", path)


def test_a_generated_client_knows_why_a_job_failed(running: Served) -> None:
    schemas = running.client.get("/openapi.json").json()["components"]["schemas"]
    assert {"$ref": "#/components/schemas/ProblemBody"} in schemas["JobBody"]["properties"]["error"]["anyOf"]
    assert {"type", "title", "status", "detail", "errors"} == schemas["ProblemBody"]["properties"].keys()


def test_the_headers_of_a_download_are_described(running: Served, finished: str) -> None:
    path = "/jobs/{job_id}/dataset"
    described = running.client.get("/openapi.json").json()["paths"][path]["get"]["responses"]
    etag = running.client.get(path.format(job_id=finished)).headers["ETag"]
    telling = {"Accept-Ranges", "Content-Disposition", "Content-Range", "ETag"}
    for asked in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=99-"}, {"If-None-Match": etag}):
        answer = running.client.get(path.format(job_id=finished), headers=asked)
        told = described[str(answer.status_code)].get("headers", {})
        assert {name for name in telling if name in answer.headers} == told.keys()


@pytest.mark.filterwarnings("ignore:It looks like `register_random`")  # of hypothesis itself, on Python 3.14
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_as_the_document_says(running: Served, finished: str, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_url(f"http://127.0.0.1:{running.port}/openapi.json")
    document = document.exclude(path="/readyz")  # which answers 503 here: there is no worker
    known = {"job_id": finished, "name": POOL, "index": 0}
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) > 20
    if mode == GenerationMode.NEGATIVE:
        operations = [operation for operation in operations if may_be_wrong(operation)]
        assert len(operations) > 10

    for operation in operations:

        @given(case=operation.as_strategy(generation_mode=mode))
        @FEW
        def check(case: Case) -> None:
            case.call_and_validate(timeout=60, excluded_checks=BEYOND_THE_SCHEMA)
            if case.path_parameters and case.method != "DELETE":  # once more, where there is something
                case.path_parameters |= {name: known[name] for name in case.path_parameters if name in known}
                case.call_and_validate(timeout=60, excluded_checks=BEYOND_THE_SCHEMA)

        check()


def may_be_wrong(operation: Any) -> bool:
    """Whether a request can differ from the document. In a path any text may stand; hundreds of tries would tell it."""
    return bool(operation.body) or any(
        parameter.location != "path" or parameter.definition["schema"]["type"] != "string"
        for parameter in operation.iter_parameters()
    )

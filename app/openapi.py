"""What the OpenAPI document says that FastAPI cannot know: problems, files, headers, and whether keys are asked for."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.schemas import JobBody

Responses = dict[int | str, dict[str, Any]]

PROBLEM: dict[str, Any] = {
    "description": "A problem (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
}


def problems(described: dict[int, str]) -> Responses:
    """The refusals that a client of this route must expect; all others are the document's `default`."""
    return {status: PROBLEM | {"description": words} for status, words in described.items()}


def header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


JOB_HEADERS = {
    "Location": header("the job's address"),
    "Retry-After": header("after how many seconds to ask for the job"),
}
ACCEPTED: Responses = {
    202: {"description": "The job; what was sent is safe from now on", "headers": JOB_HEADERS},
    200: {"model": JobBody, "description": "This Idempotency-Key was used before: its job", "headers": JOB_HEADERS},
    **problems(
        {
            413: "More bytes than the service takes at once, or the key on a day",
            422: "Some fields or files are not as they should be; `errors` names them all",
        }
    ),
    429: PROBLEM
    | {
        "description": "Too many jobs wait, or the key's day is used up",
        "headers": {"Retry-After": header("after how many seconds to come again")},
    },
}


def content(media_type: str) -> dict[str, Any]:
    if media_type == "application/json":
        schema = {"type": "object"}
    else:
        schema = {"type": "string"} | ({} if media_type.startswith("text/") else {"format": "binary"})
    return {"content": {media_type: {"schema": schema}}}


ETAG = {"ETag": header("of the file's bytes, strong")}
SAVED = {"Content-Disposition": header("attachment, with a name to save it under")}


def file_answers(
    media_type: str, description: str, refusals: dict[int, str], further: dict[str, Any] | None = None
) -> Responses:
    """As `app.downloads.serve` answers; `further` headers come with the bytes."""
    headers = ETAG | {"Accept-Ranges": header("bytes")}
    whole = headers | (further or {})
    part = {"Content-Range": header("which bytes of how many")}
    return {
        200: {"description": description, "headers": whole} | content(media_type),
        206: {"description": "The bytes that `Range` asks for", "headers": whole | part} | content(media_type),
        304: {"description": "What `If-None-Match` names is still the whole of it", "headers": headers},
        **problems(refusals),
        416: PROBLEM | {"description": "`Range` begins behind the file's end", "headers": part},
    }


def operation_id(route: APIRoute) -> str:
    """What a generated client calls its function."""
    return route.name


def ask_for_no_null(operation: dict[str, Any]) -> None:
    """Neither a form nor an address has a null: a generated client would send the text "None"."""
    forms = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data", {})
    for field in (*operation.get("parameters", []), *forms.get("schema", {}).get("properties", {}).values()):
        schema = field.get("schema", field)
        for choice in schema.pop("anyOf", []):
            schema |= choice if choice != {"type": "null"} else {}


def complete(app: FastAPI, keys_required: bool) -> None:
    """Have the app's document ask for no nulls and, where nobody is asked for a key, say so."""
    made = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path in made()["paths"].values():
                for operation in path.values():
                    ask_for_no_null(operation)
                    if not keys_required:
                        operation.get("security", []).append({})  # the requirement that everybody meets
        return made()

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's manual has it

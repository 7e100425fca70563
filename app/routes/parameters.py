"""The query and path parameters that several routes share."""

import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from app.errors import BadCursor, JobNotFound
from app.problems import given_again, invalid


def checked_key(key: str) -> str:
    if not re.fullmatch(r"[!-~]{1,255}", key):
        raise ValueError("should be 1 to 255 ASCII characters without spaces")
    return key


def checked_job_id(job_id: str) -> str:
    """Anything that cannot be an id is unknown, and never reaches the database."""
    if not re.fullmatch(r"[0-9a-f]{32}", job_id):
        raise JobNotFound(job_id)
    return job_id


def checked_number(text: str) -> str:
    """Python's own reading would find the same thing at `13`, `+13`, `13.0` and `1_3`."""
    if not re.fullmatch("-?[0-9]+", text):
        raise ValueError("should be digits")
    return text


PoolName = Annotated[str, Path(description="the pool's name")]
JobId = Annotated[str, Path(description="the job's `id`"), AfterValidator(checked_job_id)]
ImageId = Annotated[int, BeforeValidator(checked_number), Path(description="`id` in the list of images")]
SampleIndex = Annotated[int, BeforeValidator(checked_number), Path(description="`index` in the list of samples")]


async def each_given_once(request: Request) -> None:
    """Of two values the last would count: `?status=queued&status=running` would list what runs alone."""
    if wrong := given_again({name: request.query_params.getlist(name) for name in request.query_params}):
        raise invalid(wrong)


def idempotency_key_of(
    request: Request,
    idempotency_key: Annotated[
        Annotated[str, AfterValidator(checked_key)] | None,
        Header(
            alias="Idempotency-Key",
            description="1 to 255 ASCII characters without spaces; sent again with the same content, the answer is the "
            "first job, even if that has failed, until it is deleted or 30 days old; with other content it is 422",
        ),
    ] = None,
) -> str | None:
    """One of two could be the one that the client repeats, and nobody knows which."""
    if wrong := given_again({"Idempotency-Key": request.headers.getlist("Idempotency-Key")}):
        raise invalid(wrong)
    return idempotency_key


class Page(BaseModel):
    """Which part of a list. A parameter that is misspelt is refused: ignored, it would leave the list unfiltered."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(100, ge=1, le=1000, description="how many items at most")
    cursor: str | None = Field(None, max_length=200, description="`next` of the page before")

    @model_validator(mode="before")
    @classmethod
    def without_ticket(cls, given: Mapping[str, object]) -> dict[str, object]:
        """By which the caller came in."""
        return {name: value for name, value in given.items() if name != "ticket"}

    @field_validator("cursor")
    @classmethod
    def may_be_ours(cls, cursor: str | None) -> str | None:
        if cursor is not None and not cursor.isprintable():
            raise BadCursor(cursor)
        return cursor


IdempotencyKey = Annotated[str | None, Depends(idempotency_key_of)]
PageOf = Annotated[Page, Query()]

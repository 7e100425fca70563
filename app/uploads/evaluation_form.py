"""The fields of POST /evaluations: two labeled sets, finished syntheses, and how the segmenter is trained."""

import re
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.evaluations import KINDS, Kind
from app.problems import FieldError, Problem, invalid
from app.uploads.decoders import Decoders
from app.uploads.forms import FormBoolean, FormInteger, Webhook, files_schema, read_texts, wrong_texts
from app.uploads.guides import GuideFiles, read_guides, wrong_files
from app.uploads.multipart import Form
from app.uploads.turns import Turns

SETS = ("real", "test")
FILE_FIELDS = tuple(f"{name}_{part}" for name in SETS for part in ("image", "mask"))
LISTS = ("synthesis", "arms")
MAX_SYNTHESES = 20


def split(texts: list[str]) -> list[str]:
    """A list may come as a repeated field or with commas."""
    return [part.strip() for text in texts for part in text.split(",")]


def check_job_id(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{32}", text):
        raise PydanticCustomError("job_id", "should be the id of a synthesis job, as GET /jobs?kind=synthesis lists it")
    return text


class EvaluationForm(BaseModel):
    """The text fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    synthesis: Annotated[
        list[Annotated[str, AfterValidator(check_job_id)]],
        BeforeValidator(split),
        Field(
            min_length=1, max_length=MAX_SYNTHESES, description="ids of finished synthesis jobs; repeat, or with commas"
        ),
    ]
    arms: Annotated[
        list[Kind],
        BeforeValidator(split),
        Field(min_length=1, description="which to train; every synthesis has its own two; repeat, or with commas"),
    ] = list(KINDS)
    steps: FormInteger = Field(2000, ge=1, le=200_000, description="optimiser steps, the same for every arm")
    seeds: FormInteger = Field(3, ge=1, le=20, description="training runs per arm, with the seeds 0, 1, ...")
    backbone: Literal["tiny", "mini", "b0", "b1", "b2", "b3", "b4", "b5"] = Field(
        "b0", description="of the SegFormer; mini is for a CPU, tiny for trying things out"
    )
    batch: FormInteger = Field(8, ge=1, le=256, description="images a step")
    equal_weights: FormBoolean = Field(
        True, description="draw real and synthetic images equally often, whatever their numbers"
    )
    webhook: Webhook = None


def parse_evaluation(form: Form, receivers: Collection[str]) -> tuple[dict[str, Any], str | None]:
    """The parameters, and the webhook's address. Raises Problem 422 naming every wrong field."""
    wrong = wrong_texts(form, FILE_FIELDS, LISTS)
    for name in SETS:
        wrong += [_of_set(name, error) for error in wrong_files(_one_set(form, name))]
    found = read_texts(form, EvaluationForm, FILE_FIELDS, receivers, wrong, LISTS)
    if wrong:
        raise invalid(wrong)
    parameters = found.model_dump(exclude={"webhook"})
    parameters["synthesis"] = list(dict.fromkeys(found.synthesis))
    parameters["arms"] = [kind for kind in KINDS if kind in found.arms]
    return parameters, found.webhook


async def read_set(form: Form, name: str, decoders: Decoders, turns: Turns, tenant: str) -> list[GuideFiles]:
    """The labeled images `real` or `test`, as guides are read. Raises Problem 422 naming every bad file."""
    try:
        return await read_guides(_one_set(form, name), decoders, turns, tenant)
    except Problem as problem:
        raise invalid([_of_set(name, error) for error in problem.fields]) from problem


def _one_set(form: Form, name: str) -> Form:
    """The files of one set under the names that guides have."""
    parts = {f"{name}_{part}": part for part in ("image", "mask")}
    return Form(
        texts={parts[key]: value for key, value in form.texts.items() if key in parts},
        files={parts[key]: value for key, value in form.files.items() if key in parts},
    )


def _of_set(name: str, error: FieldError) -> FieldError:
    return FieldError(f"{name}_{error.field}", error.detail)


def evaluation_schema() -> dict[str, Any]:
    schema = EvaluationForm.model_json_schema()
    files = {
        "real_image": files_schema("labeled radiographs to train on: those that were the guides"),
        "real_mask": files_schema("their masks, same count, order and sizes; binary"),
        "test_image": files_schema("labeled radiographs to test on, used nowhere else"),
        "test_mask": files_schema("their masks, same count, order and sizes; binary"),
    }
    schema["properties"] = {**files, **schema["properties"]}
    schema["required"] = [*FILE_FIELDS, "synthesis"]
    return schema

"""The fields of POST /pools/{name}/images: image files, or one archive of them."""

from collections.abc import Collection
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.problems import FieldError, invalid
from app.uploads.forms import Webhook, files_schema, read_texts, sent_as_text, wrong_texts
from app.uploads.multipart import Form

FILE_FIELDS = ("images", "archive")


class ImportForm(BaseModel):
    """The text fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    webhook: Webhook = None
    region: Literal["none", "crop"] = Field("none", description="crop to the tooth-bearing jaw")


def parse_import(form: Form, receivers: Collection[str]) -> ImportForm:
    """Raises Problem 422 naming every wrong field."""
    wrong = wrong_texts(form, FILE_FIELDS) + wrong_files(form)
    found = read_texts(form, ImportForm, FILE_FIELDS, receivers, wrong)
    if wrong:
        raise invalid(wrong)
    return found


def wrong_files(form: Form) -> list[FieldError]:
    images, archives = (form.files.get(name, []) for name in FILE_FIELDS)
    if wrong := sent_as_text(form, FILE_FIELDS):
        return wrong
    if not images and not archives:
        return [FieldError("images", "is missing; send at least one image file, or a zip of images as archive")]
    if len(archives) > 1 or (archives and images):
        return [FieldError("archive", "comes once and alone; send further files in further requests")]
    return []


def import_schema() -> dict[str, Any]:
    schema = ImportForm.model_json_schema()
    images = files_schema("PNG, JPEG, TIFF, BMP or DICOM radiographs")
    archive = {"type": "string", "format": "binary", "description": "one zip of such images, instead"}
    schema["properties"] = {"images": images, "archive": archive, **schema["properties"]}
    return schema

"""What the forms have in common: numbers and words parsed strictly, and all that is wrong reported at once."""

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from app.problems import FieldError, given_again, in_words, invalid
from app.uploads.multipart import Form
from app.webhooks.hosts import refusal

Fields = TypeVar("Fields", bound=BaseModel)

TRUE = ("true", "1", "on", "yes")
FALSE = ("false", "0", "off", "no")


def parse_integer(value: object) -> object:
    """Digits, perhaps between spaces: `int()` would also take '1_0' and digits of other scripts."""
    if isinstance(value, str):
        if not re.fullmatch(r" *[+-]?[0-9]{1,30} *", value):
            raise PydanticCustomError("integer", "should be a whole number, such as 5")
        return int(value)
    return value


def parse_boolean(value: object) -> object:
    """As JSON, Python, HTML's checkboxes and people write it."""
    if isinstance(value, str):
        word = value.strip(" ").lower()
        if word not in TRUE + FALSE:
            raise PydanticCustomError("boolean", "should be true or false")
        return word in TRUE
    return value


def check_webhook(url: str, about: ValidationInfo) -> str:
    """The context of the validation is what `webhook_hosts` allows."""
    if (refused := refusal(url, about.context or ())) is not None:
        raise PydanticCustomError("webhook", "{refused}", {"refused": refused})
    return url


def parse_number(value: object) -> object:
    """Decimals as programs print them: `float()` would also take 'nan', 'inf' and '1_0'."""
    if isinstance(value, str):
        if not re.fullmatch(r" *([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})(e[+-]?[0-9]{1,3})? *", value, re.IGNORECASE):
            raise PydanticCustomError("number", "should be a number from 0 on, such as 0.75")
        return float(value)
    return value


FormInteger = Annotated[int, BeforeValidator(parse_integer)]
FormBoolean = Annotated[bool, BeforeValidator(parse_boolean)]
Webhook = Annotated[
    Annotated[str, AfterValidator(check_webhook)] | None,
    Field(description="a URL that is told of the job's end, at a receiver that this service allows"),
]
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(parse_number)]
Figure = Annotated[float, Field(ge=0, le=100), BeforeValidator(parse_number)]


def read_texts(
    form: Form,
    fields: type[Fields],
    file_fields: Sequence[str],
    receivers: Collection[str],
    wrong: Sequence[FieldError],
    lists: Sequence[str] = (),
) -> Fields:
    """The text fields, of `lists` all that was given. Raises Problem 422 naming `wrong` and every wrong text."""
    texts: dict[str, Any] = {
        name: values if name in lists else values[0] for name, values in form.texts.items() if name not in file_fields
    }
    try:
        return fields.model_validate(texts, context=receivers)
    except ValidationError as error:
        raise invalid([*wrong, *plain_errors(error, (*file_fields, *fields.model_fields))]) from error


def wrong_texts(form: Form, file_fields: Sequence[str], lists: Sequence[str] = ()) -> list[FieldError]:
    """Texts given more than once, but for `lists`; and files in fields that take none."""
    wrong = given_again({name: texts for name, texts in form.texts.items() if name not in (*file_fields, *lists)})
    remedy = f"is not a file field; files go into {', '.join(file_fields)}"
    return wrong + [FieldError(name, remedy) for name in form.files if name not in file_fields]


def sent_as_text(form: Form, file_fields: Sequence[str]) -> list[FieldError]:
    remedy = "is text here; send it as a file, with a file name"
    return [FieldError(name, remedy) for name in file_fields if name in form.texts]


def plain_errors(error: ValidationError, known: tuple[str, ...]) -> list[FieldError]:
    unknown = f"is not a field of this form; known: {', '.join(known)}"
    found = []
    for item in error.errors(include_url=False):
        is_empty = item["input"] == "" and item["type"] != "extra_forbidden"
        words = "is empty; give it a value or leave it out" if is_empty else in_words(item, unknown)
        found.append(FieldError(str(item["loc"][0]), words))
    return found


def openapi_body(schema: dict[str, Any]) -> dict[str, Any]:
    """The description of a multipart body, for /docs; the body itself is read by `multipart.read_form`."""
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def files_schema(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "format": "binary"}, "description": description}

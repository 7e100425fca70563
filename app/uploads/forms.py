"""The fields of POST /synthesize: parsed strictly, all wrong ones reported at once, the preset filled in."""

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from app.presets import PRESETS
from app.problems import FieldError, invalid, plain, shortened
from app.trust import REDRAWS, THRESHOLDS
from app.uploads.multipart import Form, shown
from app.webhooks.hosts import refusal

FILE_FIELDS = ("image", "mask")
MAX_GUIDES = 1000
MAX_SEED = 2**63 - 1


def parse_integer(value: object) -> object:
    """Digits and nothing else: `int()` would also take ' 1_0 ' and digits of other scripts."""
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?[0-9]{1,30}", value, re.ASCII):
            raise PydanticCustomError("integer", "should be a whole number, such as 5")
        return int(value)
    return value


def parse_boolean(value: object) -> object:
    if isinstance(value, str):
        if value not in ("true", "false", "1", "0"):
            raise PydanticCustomError("boolean", "should be true, false, 1 or 0")
        return value in ("true", "1")
    return value


def check_webhook(url: str, about: ValidationInfo) -> str:
    """The context of the validation is what `webhook_hosts` allows."""
    if (refused := refusal(url, about.context or ())) is not None:
        raise PydanticCustomError("webhook", "{refused}", {"refused": refused})
    return url


def parse_number(value: object) -> object:
    """Plain decimals: `float()` would also take 'nan', 'inf' and '1_0'."""
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value, re.ASCII):
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
NoiseLevel = Annotated[int, Field(ge=1, le=1000), BeforeValidator(parse_integer)]
Dilation = Annotated[int, Field(ge=0, le=8), BeforeValidator(parse_integer)]


class SynthesisForm(BaseModel):
    """The text fields; what is left out comes from the preset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: str = Field("default", description="the pool whose images become the background")
    top_k: FormInteger = Field(
        5, ge=1, le=1000, description="most similar pool images per guide; at most the pool's size"
    )
    preset: Literal["paper", "harmonize"] = "paper"
    steps: NoiseLevel | None = Field(None, description="denoising steps, at most start_timestep")
    start_timestep: NoiseLevel | None = Field(None, description="noise level to start from, of 1000")
    sampler: Literal["ddpm", "ddim"] | None = None
    dilation: Dilation | None = Field(None, description="of the anatomy mask, in latent pixels (8 px)")
    reblend: FormBoolean | None = Field(None, description="re-impose the known latents at every step")
    hold_anatomy: FormBoolean | None = Field(
        None, description="re-impose the guide's latent on the anatomy at every step: only the seam is sampled"
    )
    match_statistics: FormBoolean | None = Field(None, description="give the guide's anatomy the pool image's look")
    transfer_detail: FormBoolean | None = Field(None, description="put back the grain that the VAE takes away")
    restore_background: FormBoolean | None = Field(None, description="the pool image's own pixels outside the mask")
    align: FormBoolean | None = Field(
        None, description="move each guide, image and mask together, onto the pool image's anatomy first"
    )
    region: Literal["none", "crop"] = Field("none", description="crop the guides to the tooth-bearing jaw")
    selection: Literal["ssim", "random"] = "ssim"
    method: Literal["diffusion", "blend", "paste"] = "diffusion"
    seed: FormInteger = Field(0, ge=0, le=MAX_SEED, description="0 to 2**63 - 1")
    model: str = Field("default", description="weights by name, see /models")
    webhook: Webhook = None
    min_canal_retention: Figure | None = Field(None, description="keep no sample whose canal_retention is below")
    min_alignment: Share | None = Field(None, description="keep no sample whose alignment is below; needs align")
    min_background_ssim: Share | None = Field(None, description="keep no sample whose background_ssim is below")
    max_seam: Figure | None = Field(None, description="keep no sample whose seam is above")
    min_training_distance: Figure | None = Field(None, description="keep no sample whose training_distance is below")
    on_fail: Literal["drop", "redraw"] | None = Field(
        None,
        description="a sample below a threshold is left out (drop, the default), or made anew from the next-ranked "
        f"pool image, up to {REDRAWS} times (redraw)",
    )

    def resolved(self) -> dict[str, Any]:
        """Every parameter's value: the client's, else the preset's; thresholds only where given."""
        given = self.model_dump(exclude_none=True, exclude={"webhook"})
        judged = {"on_fail": "drop"} if given.keys() & set(THRESHOLDS) else {}
        return asdict(PRESETS[self.preset]) | judged | given


def parse_synthesis(form: Form, receivers: Collection[str]) -> tuple[dict[str, Any], str | None]:
    """The resolved parameters, and the webhook's address. Raises Problem 422 naming every wrong field."""
    wrong = wrong_texts(form, FILE_FIELDS) + wrong_files(form)
    texts = {name: values[0] for name, values in form.texts.items() if name not in FILE_FIELDS}
    try:
        given = SynthesisForm.model_validate(texts, context=receivers)
    except ValidationError as error:
        raise invalid(wrong + field_errors(error)) from error
    parameters = given.resolved()
    if parameters["steps"] > parameters["start_timestep"]:
        wrong.append(too_many_steps(parameters))
    if "min_alignment" in parameters and not parameters["align"]:
        wrong.append(FieldError("min_alignment", "needs align, which is off; give align=true, too, or leave it out"))
    if "on_fail" in parameters and not parameters.keys() & set(THRESHOLDS):
        wrong.append(FieldError("on_fail", f"needs a threshold to fail; give one of {', '.join(THRESHOLDS)}, too"))
    if wrong:
        raise invalid(wrong)
    return parameters, given.webhook


def wrong_texts(form: Form, file_fields: Sequence[str], lists: Sequence[str] = ()) -> list[FieldError]:
    """Texts given more than once, but for `lists`; and files in fields that take none."""
    wrong = [
        FieldError(shown(name), f"is given {len(values)} times; give it once")
        for name, values in form.texts.items()
        if len(values) > 1 and name not in (*file_fields, *lists)
    ]
    remedy = f"is not a file field; files go into {', '.join(file_fields)}"
    return wrong + [FieldError(shown(name), remedy) for name in form.files if name not in file_fields]


def wrong_files(form: Form) -> list[FieldError]:
    counts = {name: len(form.files.get(name, [])) for name in FILE_FIELDS}
    wrong = [
        FieldError(name, "is text here; send it as a file, with a file name")
        for name in FILE_FIELDS
        if name in form.texts
    ]
    missing = [name for name in FILE_FIELDS if not counts[name] and name not in form.texts]
    wrong += [FieldError(name, f"is missing; send at least one {name} file") for name in missing]
    if not missing and not wrong and counts["image"] != counts["mask"]:
        given = f"{counts['image']} image and {counts['mask']} mask files"
        detail = f"{given}; send one mask per image, in the same order"
        wrong.append(FieldError("mask", detail))
    if counts["image"] > MAX_GUIDES:
        wrong.append(FieldError("image", f"{counts['image']} files, at most {MAX_GUIDES} fit in one job"))
    return wrong


def field_errors(error: ValidationError) -> list[FieldError]:
    return plain_errors(error, known_fields())


def plain_errors(error: ValidationError, known: tuple[str, ...]) -> list[FieldError]:
    found = []
    for item in error.errors(include_url=False):
        name = shown(str(item["loc"][0]))
        if item["type"] == "extra_forbidden":
            found.append(FieldError(name, f"is not a field of this form; known: {', '.join(known)}"))
        elif item["type"] == "missing":
            found.append(FieldError(name, "is missing"))
        else:
            found.append(FieldError(name, f"{plain(item['msg'])}; got {shortened(item['input'])}"))
    return found


def too_many_steps(parameters: dict[str, Any]) -> FieldError:
    steps, start, preset = parameters["steps"], parameters["start_timestep"], parameters["preset"]
    return FieldError(
        "steps",
        f"is {steps}, more than start_timestep, which is {start} (preset {preset} unless given); "
        f"lower steps or raise start_timestep",
    )


def known_fields() -> tuple[str, ...]:
    return (*FILE_FIELDS, *SynthesisForm.model_fields)


def openapi_body(schema: dict[str, Any]) -> dict[str, Any]:
    """The description of a multipart body, for /docs; the body itself is read by `multipart.read_form`."""
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def files_schema(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "format": "binary"}, "description": description}


def synthesis_schema() -> dict[str, Any]:
    schema = SynthesisForm.model_json_schema()
    guides = files_schema("the guides: PNG, JPEG, TIFF, BMP or DICOM radiographs, 8 or 16 bit, any size")
    masks = files_schema("their masks, same count, order and sizes; binary")
    schema["properties"] = {"image": guides, "mask": masks, **schema["properties"]}
    schema["required"] = list(FILE_FIELDS)
    return schema

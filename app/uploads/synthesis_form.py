"""The fields of POST /synthesize: parsed strictly, all wrong ones reported at once, the preset filled in."""

from collections.abc import Collection
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.presets import PRESETS, Sampler
from app.problems import FieldError, invalid
from app.trust import REDRAWS, THRESHOLDS
from app.uploads.forms import (
    Figure,
    FormBoolean,
    FormInteger,
    Share,
    Webhook,
    files_schema,
    parse_integer,
    read_texts,
    wrong_texts,
)
from app.uploads.guides import FILE_FIELDS, MAX_GUIDES, wrong_files
from app.uploads.multipart import Form

MAX_SEED = 2**63 - 1

NoiseLevel = Annotated[int, Field(ge=1, le=1000), BeforeValidator(parse_integer)]
Dilation = Annotated[int, Field(ge=0, le=8), BeforeValidator(parse_integer)]


class SynthesisForm(BaseModel):
    """The text fields; what is left out comes from the preset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: str = Field("default", description="the pool whose images become the background")
    top_k: FormInteger = Field(
        5,
        ge=1,
        le=1000,
        description="most similar pool images per guide, at most the pool's size; a guide that lies in the pool itself "
        "is passed over, unless top_k is the pool's size",
    )
    preset: Literal["paper", "harmonize"] = Field(
        "paper", description="where fields left out get their values from, see /presets"
    )
    steps: NoiseLevel | None = Field(None, description="denoising steps, at most start_timestep")
    start_timestep: NoiseLevel | None = Field(None, description="noise level to start from, of 1000")
    sampler: Sampler | None = Field(None, description="ancestral or deterministic steps")
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
    selection: Literal["ssim", "random"] = Field(
        "ssim", description="the pool images most similar by SSIM of their latents, or drawn by lot: a control"
    )
    method: Literal["diffusion", "blend", "paste"] = Field(
        "diffusion", description="or a control: blend, latents blended without diffusion; paste, pixels copied"
    )
    seed: FormInteger = Field(0, ge=0, le=MAX_SEED, description="0 to 2**63 - 1")
    model: str = Field("default", description="weights by name, see /models")
    webhook: Webhook = None
    min_canal_retention: Figure | None = Field(None, description="keep no sample whose canal_retention is below")
    min_alignment: Share | None = Field(
        None, description="keep no sample whose alignment is below or empty; needs align"
    )
    min_background_ssim: Share | None = Field(None, description="keep no sample whose background_ssim is below")
    max_seam: Figure | None = Field(None, description="keep no sample whose seam is above")
    min_training_distance: Figure | None = Field(None, description="keep no sample whose training_distance is below")
    on_fail: Literal["drop", "redraw"] | None = Field(
        None,
        description="a sample that fails a threshold is left out (drop, the default), or made anew from the next "
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
    given = read_texts(form, SynthesisForm, FILE_FIELDS, receivers, wrong)
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


def too_many_steps(parameters: dict[str, Any]) -> FieldError:
    steps, start, preset = parameters["steps"], parameters["start_timestep"], parameters["preset"]
    return FieldError(
        "steps",
        f"is {steps}, more than start_timestep, which is {start} (preset {preset} unless given); "
        f"lower steps or raise start_timestep",
    )


def synthesis_schema() -> dict[str, Any]:
    schema = SynthesisForm.model_json_schema()
    guides = files_schema(
        f"the guides, 1 to {MAX_GUIDES}: PNG, JPEG, TIFF, BMP or DICOM, 8 or 16 bit, at least 32 pixels a side"
    )
    masks = files_schema("their masks, same count, order and sizes; binary")
    schema["properties"] = {"image": guides, "mask": masks, **schema["properties"]}
    schema["required"] = list(FILE_FIELDS)
    return schema

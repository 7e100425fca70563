"""The texts of a dataset: one line per sample for programs, one page for people."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from app.labels import label
from app.regions import box
from app.tables import Guide, Job, Sample
from app.trust import THRESHOLDS, quality_summary
from models.report import name_cell

FROM_PARAMETERS = ("method", "sampler", "steps", "start_timestep", "dilation", "model")
COLUMNS = (
    "index", "image", "mask", "guide_name", "guide_sha256", "pool_image_name", "pool_image_sha256",
    "rank", "ssim", "seed", *FROM_PARAMETERS, "model_sha256", "image_sha256", "mask_sha256",
)  # fmt: skip
BOXES = ("guide_box", "guide_frame", "guide_region", "pool_image_box", "pool_image_frame", "pool_image_region")
_REGION = {True: "found", False: "not found", None: "not asked for"}


class _Line:
    """A csv.writer's file: what `write` returns the writer returns, too."""

    def write(self, line: str) -> str:
        return line


def manifest_csv(
    job: Job,
    guides: Sequence[Guide],
    samples: Iterable[Sample],
    model_sha256: str,
    boxed: Iterable[tuple[Sample, Mapping[str, Any]]],
) -> Iterator[str]:
    """One line per sample: COLUMNS, the figures of its quality, empty where there is none, and BOXES.

    boxed: the samples again, each with the box of its pool image.
    """
    figures = sorted({name for sample in samples for name in sample.quality or {}})
    table = csv.writer(_Line(), lineterminator="\n")
    yield table.writerow([*COLUMNS, *figures, *BOXES])
    for sample, pool_box in boxed:
        guide = guides[sample.guide]
        quality = sample.quality or {}
        yield table.writerow(
            [
                sample.position,
                f"images/{sample.position:06d}.png",
                f"masks/{sample.position:06d}.png",
                name_cell(guide.name),
                guide.image_sha256,
                name_cell(sample.pool_image_name),
                sample.pool_image_sha256,
                sample.rank,
                f"{sample.ssim:.7f}",
                sample.seed,
                *(job.parameters[name] for name in FROM_PARAMETERS),
                model_sha256,
                sample.image_sha256,
                label(sample, guide).sha256,
                *("" if quality.get(name) is None else f"{quality[name]:.6g}" for name in figures),
                *_box_cells(box(guide.width, guide.height, guide.crop)),
                *_box_cells(pool_box),
            ]
        )


def _box_cells(found: Mapping[str, Any]) -> list[str]:
    """`left top width height` and `width height` of the whole, in the original's pixels; was a region found?"""
    if not found:
        return ["", "", ""]
    place = " ".join(str(found[name]) for name in ("left", "top", "width", "height"))
    return [place, f"{found['frame_width']} {found['frame_height']}", _REGION[found["found"]]]


def _judged(job: Job) -> str:
    """What became of the samples that failed the job's thresholds; nothing where it set none."""
    asked = [f"`{name}` {job.parameters[name]:g}" for name in THRESHOLDS if name in job.parameters]
    if not asked:
        return ""
    made, kept, dropped, redrawn = quality_summary(job).values()
    return f"""## What was kept

Thresholds: {", ".join(asked)}; `on_fail` {job.parameters["on_fail"]}.
Of {made} samples made, {kept} are kept, {dropped} were dropped, and {redrawn} made anew from another pool image.
The numbers of dropped samples are missing from the file names; `job.json` says why each was dropped.

"""


LABELS = {
    False: "the guide's own mask",
    True: "the guide's mask, moved with the guide to fit the pool image",
}
MOVED = """
Before that each guide was moved, image and mask together, to lie where the pool image has its own anatomy: so every
sample has a label of its own, which is true however well the two fit. `alignment` in `manifest.csv` says how well, at
most 1; it is empty where the anatomy would have left the picture, and the guide stayed where it was.
"""


def _count(job: Job, samples: int) -> str:
    lacking = f" ({job.failed} more could not be made, `job.json` says why)" if job.failed else ""
    return f"{samples} samples{lacking}"


def _method(chosen: Mapping[str, Any]) -> str:
    """How the guide's anatomy came into the pool image."""
    placed = "put in place of the pool image's where the dilated mask marks the anatomy"
    if chosen["method"] == "paste":
        return f"The pixels of the guide are {placed},\nwithout networks (a control)."
    how = "decoded without diffusion (a control)"
    if chosen["method"] == "diffusion":
        levels = f"noised to level {chosen['start_timestep']} of 1,000 and denoised"
        how = f"{levels} in {chosen['steps']} steps ({chosen['sampler']})"
    return f"The latent of the guide is {placed}; the\nblend is {how}."


def readme(job: Job, guides: int, samples: int) -> str:
    """What the dataset is, how it was made, and that it is synthetic."""
    chosen = job.parameters
    aligned = bool(chosen.get("align"))
    choice = "most similar by SSIM of their latents" if chosen["selection"] == "ssim" else "drawn by lot (a control)"
    return f"""# Synthetic labeled panoramic radiographs

**These images are synthetic.** They were made to train segmentation networks, and are not for diagnosis. Each is put
together from the radiographs of two patients, large parts of which are seen in it: protect it as you protect those.

{_count(job, samples)} of 512 x 256 pixels, from {guides} labeled image{"s" if guides != 1 else ""} (guides) and,
for each, the {chosen["top_k"]} pool images {choice}.

| file | content |
|---|---|
| `images/000000.png` ... | the synthetic radiographs, 8-bit grayscale |
| `masks/000000.png` ... | their labels, 0 and 255: {LABELS[aligned]} |
| `manifest.csv` | one line per sample: its guide, its pool image, SSIM, seed, sha256 and figures of quality |
| `job.json` | all parameters, versions, and the card of the weights |
| `preview.png` | some samples: guide, unlabeled pool image, synthetic |

## How they were made

{_method(chosen)} So the anatomy is the guide's, its label is true,
and the rest of the picture is the pool image's. Seed {chosen["seed"]}, weights `{chosen["model"]}`: with the
same images, parameters, weights and versions the same bytes come out again on a CPU.
{MOVED if aligned else ""}
The method follows *Anatomy-guided Latent Diffusion Model for Fine-grained Medical Image Synthetic
Augmentation*; `job.json` holds every parameter.

## Back into the full frame

`manifest.csv` says of guide and pool image which part of the original the 512 x 256 pixels show: `..._box` is
`left top width height`, `..._frame` the original's `width height`, in its pixels. To put a sample back, resize it to
the pool image's box (the mask by nearest neighbour) and paste it at `left top` into a picture of the frame's size.

{_judged(job)}## Before you train on them

- Look at `preview.png`. Leave out samples by `canal_retention` and `ssim` in `manifest.csv` if you wish.
- The pool image's own anatomy may still be faintly there outside the mask, where the label says background.
- Keep guides and pool images out of the test set.
"""

"""The texts of a dataset: one line per sample for programs, one page for people."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO

from app.tables import Guide, Job, Sample

FROM_PARAMETERS = ("method", "sampler", "steps", "start_timestep", "dilation", "model")
COLUMNS = (
    "index", "image", "mask", "guide_name", "guide_sha256", "pool_image_name", "pool_image_sha256",
    "rank", "ssim", "seed", *FROM_PARAMETERS, "model_sha256", "image_sha256", "mask_sha256",
)  # fmt: skip


def manifest_csv(job: Job, guides: Sequence[Guide], samples: Iterable[Sample], model_sha256: str) -> str:
    """One line per sample, COLUMNS and after them the figures of its quality, empty where there is none.

    The samples are walked through twice.
    """
    figures = sorted({name for sample in samples for name in sample.quality or {}})
    out = StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*COLUMNS, *figures])
    for sample in samples:
        guide = guides[sample.guide]
        quality = sample.quality or {}
        table.writerow(
            [
                sample.position,
                f"images/{sample.position:06d}.png",
                f"masks/{sample.position:06d}.png",
                guide.name,
                guide.image_sha256,
                sample.pool_image_name,
                sample.pool_image_sha256,
                sample.rank,
                f"{sample.ssim:.7f}",
                sample.seed,
                *(job.parameters[name] for name in FROM_PARAMETERS),
                model_sha256,
                sample.image_sha256,
                guide.mask_sha256,
                *("" if quality.get(name) is None else f"{quality[name]:.6g}" for name in figures),
            ]
        )
    return out.getvalue()


def readme(job: Job, guides: int, samples: int) -> str:
    """What the dataset is, how it was made, and that it is synthetic."""
    chosen = job.parameters
    how = {
        "diffusion": f"noised to level {chosen['start_timestep']} of 1,000 and denoised "
        f"in {chosen['steps']} steps ({chosen['sampler']})",
        "blend": "decoded without diffusion (a control)",
        "paste": "made by copying pixels, without networks (a control)",
    }[chosen["method"]]
    choice = "most similar by SSIM of their latents" if chosen["selection"] == "ssim" else "drawn by lot (a control)"
    return f"""# Synthetic labeled panoramic radiographs

**These images are synthetic.** They were made to train segmentation networks. They show no patient, and are
not for diagnosis.

{samples} samples of 512 x 256 pixels, from {guides} labeled image{"s" if guides != 1 else ""} (guides) and,
for each, the {chosen["top_k"]} pool images {choice}.

| file | content |
|---|---|
| `images/000000.png` ... | the synthetic radiographs, 8-bit grayscale |
| `masks/000000.png` ... | their labels, 0 and 255: the guide's own mask |
| `manifest.csv` | one line per sample: its guide, its pool image, SSIM, seed, sha256 and figures of quality |
| `job.json` | all parameters, versions, and the card of the weights |
| `preview.png` | some samples: guide, unlabeled pool image, synthetic |

## How they were made

The latent of the guide is put in place of the pool image's where the dilated mask marks the anatomy; the
blend is {how}. So the anatomy is the guide's, its label is true,
and the rest of the picture is the pool image's. Seed {chosen["seed"]}, weights `{chosen["model"]}`: with the
same images, parameters, weights and versions the same bytes come out again on a CPU.

The method follows *Anatomy-guided Latent Diffusion Model for Fine-grained Medical Image Synthetic
Augmentation*; `job.json` holds every parameter.

## Before you train on them

- Look at `preview.png`. Leave out samples by `canal_retention` and `ssim` in `manifest.csv` if you wish.
- The pool image's own anatomy may still be faintly there outside the mask, where the label says background.
- Keep guides and pool images out of the test set.
"""

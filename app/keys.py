"""The blobs' keys."""


def of_job(job_id: str) -> str:
    """What the keys of all that a job has begin with."""
    return f"jobs/{job_id}/"


def of_pool(pool_id: str) -> str:
    """The same of a pool."""
    return f"pools/{pool_id}/"


def pool_image(pool_id: str, sha256: str) -> str:
    """A pool image's pixels, a PNG of 512 x 256."""
    return f"pools/{pool_id}/images/{sha256}.png"


def latents(pool_id: str, model_sha256: str, shard: str) -> str:
    """An array (n, C, 32, 64) float32 of a pool's latents."""
    return f"pools/{pool_id}/latents/{model_sha256}/{shard}.npy"


def upload(job_id: str, position: int) -> str:
    """A file of a pool import, as it came."""
    return f"jobs/{job_id}/uploads/{position}"


def archive(job_id: str) -> str:
    """The zip of a pool import, as it came."""
    return f"jobs/{job_id}/archive.zip"


def guide(job_id: str, sha256: str) -> str:
    """A guide's image or mask, PNGs of 512 x 256."""
    return f"jobs/{job_id}/guides/{sha256}.png"


def original(job_id: str, sha256: str) -> str:
    """A guide's image or mask at its own size, to be cropped."""
    return f"{originals(job_id)}{sha256}.png"


def originals(job_id: str) -> str:
    """What the keys of all originals begin with."""
    return f"jobs/{job_id}/originals/"


def sample(job_id: str, sha256: str) -> str:
    """A sample's image or its own mask, PNGs of 512 x 256."""
    return f"jobs/{job_id}/samples/{sha256}.png"


def dataset(job_id: str) -> str:
    """A succeeded synthesis' zip."""
    return f"jobs/{job_id}/dataset.zip"


def dataset_disposition(job_id: str) -> str:
    """The Content-Disposition of the zip, from the API and from a bucket: saved as a file, under this name."""
    return f'attachment; filename="pansynth-{job_id}.zip"'


def matches(job_id: str, position: int) -> str:
    """How far a comparison with a large pool got, JSON; removed when it is done."""
    return f"jobs/{job_id}/matches/{position}.json"


def arm(job_id: str, position: int) -> str:
    """The figures of one arm and seed of an evaluation, JSON."""
    return f"jobs/{job_id}/arms/{position}.json"


def checkpoint(job_id: str, position: int) -> str:
    """Where the training of an arm was left to the next worker; removed when it is done."""
    return f"jobs/{job_id}/arms/{position}.checkpoint"


def report(job_id: str, form: str) -> str:
    """An evaluation's report as json, csv, md or png."""
    return f"jobs/{job_id}/report.{form}"

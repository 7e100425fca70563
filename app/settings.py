"""Settings, read from the environment once, in `create_app` or when a worker starts."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting is an environment variable with the prefix PANSYNTH_; all three URLs default to DATA_DIR."""

    model_config = SettingsConfigDict(env_prefix="PANSYNTH_", frozen=True, extra="ignore")

    data_dir: Path = Path("pansynth-data")
    database_url: str = ""  # default: sqlite in data_dir
    broker_url: str = ""  # default: the bundled server on a unix socket in data_dir
    blob_url: str = ""  # default: a folder in data_dir; or s3://bucket/prefix
    presigned_downloads: bool = False  # datasets come from the bucket itself, which clients must be able to reach
    weights_dir: Path | None = None  # more weights beside the shipped ones: one folder per name
    device: str = "auto"  # auto | cpu | cuda | cuda:1 ...
    api_keys_required: bool = False  # forced on by `serve` and `up` beyond loopback
    key_secret: SecretStr = SecretStr("")  # hashes the keys; default: a file in data_dir, see `app.secret`
    log_format: Literal["text", "json"] = "text"
    max_upload_bytes: int = Field(default=200_000_000, gt=0)
    max_pixels: int = Field(default=60_000_000, gt=0)
    max_queued_jobs: int = Field(default=1000, gt=0)
    retention_days: float | None = Field(default=None, gt=0)
    lease_seconds: float = Field(default=30.0, gt=0)
    max_attempts: int = Field(default=5, ge=1)

    def database(self) -> str:
        return self.database_url or f"sqlite:///{(self.data_dir / 'pansynth.sqlite').resolve()}"

    def broker(self) -> str:
        return self.broker_url or f"redis+socket://{(self.data_dir / 'broker.sock').resolve()}"

    def blobs(self) -> str:
        return self.blob_url or f"file://{(self.data_dir / 'blobs').resolve()}"

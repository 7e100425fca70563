"""Settings, read from the environment once, in `create_app` or when a worker starts."""

import base64
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import DirectoryPath, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.webhooks.hosts import receiver_of

DEVICES = r"auto|cpu|cuda(:\d+)?"
ESCAPES = str.maketrans({sign: f"%{ord(sign):02X}" for sign in "%?#"})  # of a path in a URL
DATABASES = ("postgresql+psycopg", "postgresql", "postgres", "sqlite")


class Settings(BaseSettings):
    """Every setting is an environment variable with the prefix PANSYNTH_, an empty one is not set.

    All three URLs default to DATA_DIR.
    """

    model_config = SettingsConfigDict(env_prefix="PANSYNTH_", env_ignore_empty=True, frozen=True, extra="ignore")

    data_dir: Path = Path("pansynth-data")
    database_url: str = ""  # default: sqlite in data_dir
    broker_url: str = ""  # default: the bundled server on a unix socket in data_dir
    blob_url: str = ""  # default: a folder in data_dir; or s3://bucket/prefix
    presigned_downloads: bool = False  # datasets come from the bucket itself, which clients must be able to reach
    weights_dir: DirectoryPath | None = None  # more weights beside the shipped ones: one folder per name
    device: str = "auto"  # auto | cpu | cuda | cuda:1 ...
    api_keys_required: bool = False  # forced on by `serve` and `up` beyond loopback
    key_secret: SecretStr = SecretStr("")  # hashes the keys; default: a file in data_dir, see `app.access.secret`
    log_format: Literal["text", "json"] = "text"
    max_upload_bytes: int = Field(default=200_000_000, gt=0)
    max_pixels: int = Field(default=60_000_000, gt=0, le=10**12)  # no image has more; a decoder could not start
    max_queued_jobs: int = Field(default=1000, gt=0)
    retention_days: float | None = Field(default=None, gt=0, le=36_500)  # no date lies much further back
    lease_seconds: float = Field(default=30.0, gt=0, le=300)
    hung_seconds: float = Field(default=180.0, gt=0)  # a step in which nothing moves for so long hangs
    max_attempts: int = Field(default=5, ge=1)
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = ()  # `host:port` each; none: no webhooks
    webhook_secret: SecretStr = Field(default=SecretStr(""), validate_default=True)

    @field_validator("database_url")
    @classmethod
    def is_a_database(cls, url: str) -> str:
        try:
            is_one = not url or _is_shared(make_url(url))
        except (ArgumentError, ValueError):  # no URL at all; a port that is no number
            is_one = False
        if not is_one:
            raise ValueError("should be postgresql+psycopg://user:password@host:5432/name, or sqlite:////folder/file")
        return url

    @field_validator("blob_url")
    @classmethod
    def is_a_store(cls, url: str) -> str:
        if url and not re.match("s3://[^/]|file:///", url):
            raise ValueError("should be s3://bucket/prefix, or file:///folder")
        return url

    @field_validator("broker_url")
    @classmethod
    def is_a_broker(cls, url: str) -> str:
        try:
            is_one = url.startswith(("redis://", "rediss://", "redis+socket:///")) and urlsplit(url).port != 0
        except ValueError:  # a port that is no number, or above 65535
            is_one = False
        if url and not is_one:
            raise ValueError("should be redis://host:6379/0, also of a Valkey; rediss:// with TLS")
        return url

    @field_validator("weights_dir")
    @classmethod
    def is_above_weights(cls, folder: Path | None) -> Path | None:
        if folder is not None and (folder / "manifest.json").exists():
            raise ValueError("should be the folder above: this one is weights itself")
        return folder

    @field_validator("device")
    @classmethod
    def is_a_device(cls, name: str) -> str:
        if not re.fullmatch(DEVICES, name):
            raise ValueError("should be auto, cpu, cuda or cuda:N")
        return name

    @field_validator("webhook_hosts", mode="before")
    @classmethod
    def receivers(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        return tuple(receiver_of(entry.strip()) for entry in given.split(",") if entry.strip())

    @field_validator("webhook_secret")
    @classmethod
    def signs(cls, secret: SecretStr, others: ValidationInfo) -> SecretStr:
        if others.data.get("webhook_hosts") or secret.get_secret_value():
            webhook_key(secret)
        return secret

    def database(self) -> str | URL:
        file = (self.data_dir / "pansynth.sqlite").resolve()
        return self.database_url or URL.create("sqlite", database=str(file))

    def broker(self) -> str:
        return self.broker_url or f"redis+socket://{str(broker_socket(self.data_dir)).translate(ESCAPES)}"

    def blobs(self) -> str:
        return self.blob_url or f"file://{(self.data_dir / 'blobs').resolve()}"


def _is_shared(database: URL) -> bool:
    """SQLite's in memory is its process's own."""
    in_memory = database.drivername == "sqlite" and database.database in (None, "", ":memory:")
    return database.drivername in DATABASES and not in_memory


def broker_socket(data_dir: Path) -> Path:
    """In the data folder, or in a short one of its own where a unix socket's path may not be that long."""
    path = data_dir.resolve() / "broker.sock"
    if len(os.fsencode(path)) <= 100:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"pansynth-{os.getuid()}-{digest}" / "broker.sock"


def webhook_key(secret: SecretStr) -> bytes:
    """What webhooks are signed with, of a secret as Standard Webhooks writes it. Raises ValueError."""
    prefix, _, encoded = secret.get_secret_value().partition("_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        key = b""
    if prefix != "whsec" or not 24 <= len(key) <= 64:
        raise ValueError('should be whsec_ and the base64 of 24 to 64 random bytes: "whsec_$(openssl rand -base64 32)"')
    return key

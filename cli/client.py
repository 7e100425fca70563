"""The service as the commands see it: HTTP requests and what goes wrong with them, in words."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from cli.failure import Failure, Interrupted

Json = dict[str, Any]
File = tuple[str, str, Path]  # field, name to send, where it lies

ENDED = ("succeeded", "failed", "cancelled")
POLL_SECONDS = 0.4
PATIENCE_SECONDS = 60.0  # how long a service that was there may be away: it is being started again
GATEWAY = (502, 503, 504)
T = TypeVar("T")


class Away(Failure):
    """The service does not answer now; it may again in a moment."""


class Unopened:
    """A file for httpx, open only while a piece of it is read: a form may have more files than a process may open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + (self._path.stat().st_size if whence == os.SEEK_END else 0)
        return self._place

    def read(self, size: int = -1) -> bytes:
        with self._path.open("rb") as file:
            file.seek(self._place)
            data = file.read(size)
        self._place += len(data)
        return data


@contextmanager
def connect(url: str) -> Iterator[httpx.Client]:
    """A client of the service at `url`, with the key $PANSYNTH_API_KEY. Raises Failure if nothing answers there."""
    key = os.environ.get("PANSYNTH_API_KEY", "").strip()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(60.0, connect=10.0)
    try:
        loopback = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
        client = httpx.Client(
            base_url=url, headers=headers, timeout=timeout, trust_env=not loopback, follow_redirects=True
        )
    except (httpx.InvalidURL, ValueError) as error:
        raise Failure(f"--url {url}: {error}; it looks like http://127.0.0.1:8000") from error
    with client:
        answer_of(client, "GET", "/livez")
        yield client


def answer_of(client: httpx.Client, method: str, path: str, **request: Any) -> httpx.Response:
    """The answer, 2xx. Raises Failure with the problem's own words otherwise, Away if there is none."""
    try:
        answer = client.request(method, path, **request)
    except httpx.HTTPError as error:
        raise Away(f"no answer from {client.base_url}: {error}; is `pansynth up` running?") from error
    if answer.status_code in GATEWAY:
        raise Away(f"{client.base_url}: {words_of(answer)}")
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise Failure(f"{client.base_url}: {words_of(answer)}; the commands take it from PANSYNTH_API_KEY")
    if not answer.is_success:
        raise Failure(f"{method} {path}: {words_of(answer)}")
    return answer


def words_of(answer: httpx.Response) -> str:
    """What a problem says, every field on a line of its own where there are several."""
    try:
        problem = answer.json()
    except ValueError:
        return f"status {answer.status_code}, {answer.text[:200]!r}"
    errors = problem.get("errors", [])
    if len(errors) > 1:
        return "\n".join([str(problem["title"]), *(f"  {error['field']}: {error['detail']}" for error in errors)])
    return str(problem.get("detail", problem))


def submit(client: httpx.Client, path: str, files: Sequence[File], fields: Mapping[str, object] | None = None) -> Json:
    """POST a form; the job. The key makes the repetition after a lost answer harmless."""
    data = {name: _text(value) for name, value in (fields or {}).items()}
    headers = {"Idempotency-Key": uuid4().hex}

    def post() -> Json:
        parts = [(field, (name, Unopened(file))) for field, name, file in files]
        job: Json = answer_of(client, "POST", path, data=data, files=parts, headers=headers).json()
        return job

    return _patiently(post)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def wait(client: httpx.Client, job: Json, show: Callable[..., None]) -> Json:
    """Follow the job until it succeeded. Raises Failure if it failed or was cancelled, Interrupted."""
    with saying_where(client, job):
        while job["status"] not in ENDED:
            time.sleep(POLL_SECONDS)
            job = _patiently(partial(answer_of, client, "GET", job["links"]["self"])).json()
            label = job["status"] if job["status"] == "cancelling" else job["stage"] or job["status"]
            show(job["progress"]["done"], job["progress"]["total"], label)
    if job["status"] != "succeeded":
        error = job["error"] or {}
        raise Failure(f"job {job['id']} {job['status']}: {error.get('detail', 'it was cancelled')}")
    return job


@contextmanager
def saying_where(client: httpx.Client, job: Json) -> Iterator[None]:
    """Turns Ctrl-C into Interrupted, which says where the job goes on."""
    try:
        yield
    except KeyboardInterrupt:
        where = str(client.base_url).rstrip("/") + job["links"]["self"]
        raise Interrupted(f"interrupted; the job goes on at {where}") from None


def download(client: httpx.Client, path: str, out: Path, show: Callable[..., None]) -> str:
    """Fetch `path` into `out`; its sha256, which the ETag states. A broken transfer goes on where it was."""
    part = out.with_name(out.name + ".part")
    part.unlink(missing_ok=True)
    stated = None
    while stated is None:
        stated = _patiently(partial(_fetch, client, path, part, show))
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != stated:
        part.unlink()
        raise Failure(f"{client.base_url}{path} arrived with sha256 {found}, {stated} was promised; try again")
    part.replace(out)
    return found


def _fetch(client: httpx.Client, path: str, part: Path, show: Callable[..., None]) -> str | None:
    """Append to `part` what it lacks; the sha256 of the whole, None where it broke after some of it had come."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with client.stream("GET", path, headers=headers) as answer:
            if answer.status_code in (*GATEWAY, httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE):
                part.unlink(missing_ok=True)
                raise Away(f"GET {path}: status {answer.status_code}")
            if not answer.is_success:
                answer.read()
                raise Failure(f"GET {path}: {words_of(answer)}")
            resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
            total = int(answer.headers["Content-Length"]) + (have if resumed else 0)
            with part.open("ab" if resumed else "wb") as file:
                for block in answer.iter_bytes():
                    file.write(block)
                    show(file.tell(), total)
            ours = (answer.history or [answer])[0]  # a bucket that we are sent on to has an ETag of its own
            return str(ours.headers["ETag"]).strip('"')
    except httpx.HTTPError as error:
        if part.exists() and part.stat().st_size > have:
            return None
        raise Away(f"GET {path}: {error}") from error


def _patiently(ask: Callable[[], T]) -> T:
    """Repeat `ask` while the service is away, for `PATIENCE_SECONDS` at most, however long it was there before."""
    away_since = None
    while True:
        try:
            return ask()
        except Away:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > PATIENCE_SECONDS:
                raise
            time.sleep(1.0)

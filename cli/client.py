"""The service as the commands see it: HTTP requests and what goes wrong with them, in words."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass
from uuid import uuid4

import httpx

from app.uploads.file_names import legible
from app.webhooks.hosts import is_loopback
from cli.failure import Failure, Interrupted
from cli.progress import Show, say
from models.sharing import named

Json = dict[str, Any]
File = tuple[str, str, Path]  # field, name to send, where it lies

ENDED = ("succeeded", "failed", "cancelled")
POLL_SECONDS = 0.4
STILL_SECONDS = 15.0  # without a step forward, after which the service is asked what it lacks
PATIENCE_SECONDS = 60.0  # how long a service that was there may be away: it is being started again
GATEWAY = (502, 503, 504)
T = TypeVar("T")


class Away(Failure):
    """The service does not answer now; it may again in a moment."""


class NotAdmitted(Failure):
    """The service takes no such key, or none any more."""


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
    """A client of the service at `url`, with the key $PANSYNTH_API_KEY. Raises Failure if no service answers there."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it lacks http:// or https:// or a host")
        address = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise Failure(f"--url {url}: {error}; it looks like http://127.0.0.1:8000") from error
    with _client(address) as client:
        try:
            if not _says_alive(answer_of(client, "GET", "/livez")):
                raise Failure(f"--url {url}: something answers there, but it is not pansynth")
        except Failure as failure:
            raise Failure(f"{failure}{_by_way_of(address)}") from failure
        yield client


def _client(address: httpx.URL) -> httpx.Client:
    """Raises Failure where the environment names a proxy that httpx cannot use."""
    timeout = httpx.Timeout(60.0, connect=10.0)
    own = is_loopback(address.host)  # no proxy leads to it
    try:
        return httpx.Client(base_url=address, headers=_authorization(), timeout=timeout, trust_env=not own)
    except (httpx.InvalidURL, ValueError, ImportError) as error:  # of socks5:, without the package for it
        raise Failure(f"the proxy that ALL_PROXY, HTTP_PROXY or HTTPS_PROXY names cannot be used: {error}") from error


def _by_way_of(address: httpx.URL) -> str:
    """The proxy between, if there is one: what fails may have failed there."""
    proxies = getproxies()
    proxy = proxies.get(address.scheme, proxies.get("all"))
    if not proxy or is_loopback(address.host) or proxy_bypass(address.host):
        return ""
    shown = proxy.rpartition("@")[2]  # without user and password
    return f"; asked through the proxy {shown}: set NO_PROXY={address.host} to ask without it"


def _authorization() -> dict[str, str]:
    key = os.environ.get("PANSYNTH_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise Failure("PANSYNTH_API_KEY has a character that is in no key; set it to the key as it was printed")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _says_alive(answer: httpx.Response) -> bool:
    try:
        return bool(answer.json() == {"status": "alive"})
    except ValueError:
        return False


def answer_of(
    client: httpx.Client, method: str, path: str, also: Collection[int] = (), **request: Any
) -> httpx.Response:
    """The answer, 2xx or one of `also`. Raises Failure with the problem's own words otherwise, Away if there is none.

    A redirect is not followed: behind one a POST would become a GET.
    """
    try:
        answer = client.request(method, path, **request)
    except httpx.HTTPError as error:
        raise Away(f"no answer from {client.base_url}: {error}; is `pansynth up` running?") from error
    if answer.status_code in GATEWAY:
        raise Away(f"{client.base_url}: {words_of(answer)}")
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise NotAdmitted(f"{client.base_url}: {words_of(answer)}; the commands take it from PANSYNTH_API_KEY")
    if answer.next_request is not None:
        moved = str(answer.next_request.url).removesuffix(path)
        raise Failure(f"--url {client.base_url}: the service has moved to {moved}; give that")
    if not answer.is_success and answer.status_code not in also:
        raise Failure(f"{method} {path}: {words_of(answer)}")
    return answer


def words_of(answer: httpx.Response) -> str:
    """What a problem says, every field on a line of its own where there are several."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:  # a proxy's, perhaps
        return f"status {answer.status_code}, {answer.text[:200]!r}"
    errors = problem.get("errors") or []
    if len(errors) > 1:
        return "\n".join([str(problem["title"]), *(f"  {error['field']}: {error['detail']}" for error in errors)])
    return str(problem["detail"])


def begin(client: httpx.Client, path: str, files: Sequence[File], fields: Mapping[str, object]) -> Json:
    """The job of this very form, where an earlier command submitted it; a new one where there is none, or it failed.

    Nothing is lost by that: the same images, fields, pool and weights give the same result.
    """
    content = _content(client, path, files, fields)
    jobs = (submit(client, path, files, fields, f"{content}-{attempt}") for attempt in count())
    return next(job for job in jobs if _is_of_use(job))


def _is_of_use(job: Json) -> bool:
    """A job that lacks samples is not: another try may make them."""
    lacking = job["status"] in ENDED and job.get("failed_samples")
    return job["status"] not in ("cancelling", "cancelled", "failed") and not lacking


def _content(client: httpx.Client, path: str, files: Sequence[File], fields: Mapping[str, object]) -> str:
    """sha256 of all that a job's result follows from."""
    models = _patiently(partial(answer_of, client, "GET", "/models")).json()["items"]
    weights = [model["sha256"] for model in models if model["name"] == fields.get("model")]
    images = ""
    if "pool" in fields:  # says how many images it has; none can be removed
        images = _patiently(partial(answer_of, client, "GET", pool_path(fields["pool"]), also=(404,))).text
    sent = [[field, name, hashlib.sha256(file.read_bytes()).hexdigest()] for field, name, file in files]
    return hashlib.sha256(json.dumps([path, sent, dict(fields), weights, images]).encode()).hexdigest()


def pool_path(name: object) -> str:
    return f"/pools/{quote(str(name), safe='')}"


def job_path(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"


def listed(client: httpx.Client, path: str) -> Iterator[Json]:
    """Every item of a list, page by page."""
    asked: Json = {"limit": 1000}
    while asked:
        page = _patiently(partial(answer_of, client, "GET", path, params=asked)).json()
        yield from page["items"]
        asked = page["next"] and asked | {"cursor": page["next"]}


def submit(
    client: httpx.Client, path: str, files: Sequence[File], fields: Mapping[str, object], key: str | None = None
) -> Json:
    """POST a form; the job. The key makes the repetition after a lost answer harmless."""
    timeout = httpx.Timeout(60.0, connect=10.0, read=600.0 + 2.0 * len(files))  # all are decoded before the answer
    data = {name: _text(value) for name, value in fields.items()}
    headers = {"Idempotency-Key": key or uuid4().hex}

    def post() -> Json:
        parts = [(field, (legible(name), Unopened(file))) for field, name, file in files]
        job: Json = answer_of(client, "POST", path, data=data, files=parts, headers=headers, timeout=timeout).json()
        return job

    return _patiently(post)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def wait(client: httpx.Client, job: Json, show: Show) -> Json:
    """Follow the job until it succeeded. Raises Failure if it failed or was cancelled, Interrupted."""
    watch = _Standstill(client)
    with saying_where(client, job):
        while job["status"] not in ENDED:
            time.sleep(POLL_SECONDS)
            job = _patiently(partial(answer_of, client, "GET", job["links"]["self"])).json()
            show(job["progress"]["done"], job["progress"]["total"], _label(job))
            watch(job)
    if job["status"] != "succeeded":
        error = job["error"] or {}
        raise Failure(f"job {job['id']} {job['status']}: {error.get('detail', 'it was cancelled')}")
    return job


class _Standstill:
    """Tells, once, what the service lacks while a job does not move: a worker, perhaps, or room on its disk."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._seen: object = None
        self._since = time.monotonic()
        self._said = ""

    def __call__(self, job: Json) -> None:
        seen, now = (job["stage"], job["progress"]), time.monotonic()
        if seen != self._seen:
            self._seen, self._since = seen, now
        elif now - self._since > STILL_SECONDS:
            self._since = now
            self._tell(self._lacking())

    def _lacking(self) -> str:
        try:
            return "; ".join(error["detail"] for error in self._client.get("/readyz").json()["errors"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):  # it is ready, or away, or that was a proxy's answer
            return ""

    def _tell(self, words: str) -> None:
        if words and words != self._said:
            say(f"the job waits: {words}", err=True)
        self._said = words


def _label(job: Json) -> str:
    """Where a job is; and how many samples were made anew, which its progress does not show."""
    label: str = job["status"] if job["status"] == "cancelling" else job["stage"] or job["status"]
    redrawn = (job.get("quality_summary") or {}).get("redrawn")
    return f"{label}, {redrawn} made anew" if redrawn else label


@contextmanager
def saying_where(client: httpx.Client, job: Json) -> Iterator[None]:
    """Says where the job is when Ctrl-C, as Interrupted, a service that is away or a revoked key ends the command."""
    verb = "is" if job["status"] in ENDED else "goes on"
    again = "sends what is lacking" if job["kind"] == "pool_import" else "takes it up"
    where = f"the job {verb} at {str(client.base_url).rstrip('/')}{job['links']['self']}"
    where += f"; the same command again {again}"
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {where}") from None
    except (Away, NotAdmitted) as failure:
        raise Failure(f"{failure}; {where}") from failure


def download(client: httpx.Client, path: str, out: Path, show: Show) -> None:
    """Fetch `path` into `out`; the ETag states its sha256. A broken transfer goes on where it was."""
    part = out.with_name(f"{out.name}.{os.getpid()}.part")  # two commands may have the same `out`
    try:
        with named(out):
            _fetch_whole(client, path, part, show)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _finish(part, out)


def _fetch_whole(client: httpx.Client, path: str, part: Path, show: Show) -> None:
    part.unlink(missing_ok=True)
    stated = None
    while stated is None:
        stated = _patiently(partial(_fetch, client, path, part, show))
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != stated:
        raise Failure(f"{client.base_url}{path} arrived with sha256 {found}, {stated} was promised; try again")


def _finish(part: Path, out: Path) -> None:
    """Give the file its name. Raises Failure where that was taken meanwhile; then the file stays where it is."""
    try:
        os.link(part, out)  # a rename would replace what is there
    except OSError:  # it is taken, or the disk knows no hard links
        if out.exists():
            raise Failure(
                f"--out {out} was made by another command meanwhile; this download is whole in {part}"
            ) from None
        part.rename(out)
    else:
        part.unlink()


def _fetch(client: httpx.Client, path: str, part: Path, show: Show) -> str | None:
    """Append to `part` what it lacks; the sha256 of the whole, None where it broke after some of it had come."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # a range of what a proxy has compressed would be of other bytes
    headers |= {"Range": f"bytes={have}-"} if have else {}
    try:
        with client.stream("GET", path, headers=headers, follow_redirects=True) as answer:  # to a bucket, perhaps
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
            if answer.status_code in (*GATEWAY, httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE):
                raise Away(f"GET {path}: status {answer.status_code}")
            if not answer.is_success:
                answer.read()
                kind = NotAdmitted if answer.status_code == httpx.codes.UNAUTHORIZED else Failure
                raise kind(f"GET {path}: {words_of(answer)}")
            stated = _stated_sha256(answer)
            resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
            coming = int(answer.headers.get("Content-Length", 0))
            total = coming and coming + (have if resumed else 0)
            with part.open("ab" if resumed else "wb") as file:
                for block in answer.iter_bytes():
                    file.write(block)
                    show(file.tell(), total)
            return stated
    except httpx.HTTPError as error:
        if part.exists() and part.stat().st_size > have:
            return None
        raise Away(f"GET {path}: {error}") from error


def _stated_sha256(answer: httpx.Response) -> str:
    ours = (answer.history or [answer])[0]  # a bucket that we are sent on to has an ETag of its own
    if "ETag" not in ours.headers:
        raise Failure(
            f"GET {ours.url.path}: the answer has no ETag, which states the sha256 of what comes; "
            "a proxy between may have removed it: let it pass, or give --url of the service itself"
        )
    return str(ours.headers["ETag"]).removeprefix("W/").strip('"')


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

"""Requests that are no good, byte by byte as a hostile or broken client sends them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

FORM = "multipart/form-data; boundary=xyz"


@dataclass(frozen=True)
class BadRequest:
    """`field` is one that the problem must name; `below`: the server refuses it before our code sees it."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    statuses: tuple[int, ...] = (422,)
    field: str | None = None
    below: bool = False
    length: str | None = None  # a Content-Length that lies

    def raw(self) -> bytes:
        head = [f"{self.method} {self.path} HTTP/1.1", "Host: localhost", "Connection: close"]
        head += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body or self.length or self.method in ("POST", "PUT", "PATCH"):
            head.append(f"Content-Length: {self.length or len(self.body)}")
        return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + self.body


def _pool(body: bytes, field: str | None = "name", kind: str = "application/json", status: int = 422) -> BadRequest:
    return BadRequest("POST", "/pools", body, {"Content-Type": kind}, (status,), field)


def _named(name: object) -> BadRequest:
    return _pool(json.dumps({"name": name}).encode())


def status_of_deep(content: bytes) -> int:
    """400 where this Python's reader gives up on JSON so deep, 422 where it reads on and what it finds is refused."""
    try:
        json.loads(content)
    except RecursionError:
        return 400
    except ValueError:
        pass
    return 422


def jsons() -> dict[str, BadRequest]:
    lists, objects = b"[" * 30_000, b'{"a":' * 10_000
    return {
        "json: none": _pool(b"", "body"),
        "json: cut short": _pool(b'{"name": "a', None),
        "json: a list": _pool(b"[]", "body"),
        "json: a text": _pool(b'"name"', "body"),
        "json: a number": _pool(b"7", "body"),
        "json: null": _pool(b"null", "body"),
        "json: no field": _pool(b"{}"),
        "json: a field too many": _pool(b'{"name": "a", "size": 1}', "size"),
        "json: another field": _pool(b'{"nme": "a"}', "nme"),
        "json: two values": _pool(b'{"name": "a"} {"name": "b"}', None),
        "json: not utf-8": _pool(b'{"name": "\xff"}', None, status=400),
        "json: utf-16": _pool('{"name": "A"}'.encode("utf-16")),
        "json: 30,000 lists deep": _pool(lists, None, status=status_of_deep(lists)),
        "json: 10,000 objects deep": _pool(objects, None, status=status_of_deep(objects)),
        "json: a number of 5,000 digits": _pool(b'{"name": ' + b"9" * 5000 + b"}", None, status=400),
        "json: 100 kB": _pool(b'{"name": "' + b"a" * 100_000 + b'"}', None, status=413),
        "json: as a text": _pool(b'{"name": "a"}', "Content-Type", "text/plain", 415),
        "json: as a form": _pool(b"name=a", "Content-Type", "application/x-www-form-urlencoded", 415),
        "json: as multipart": _pool(b"--xyz--", "Content-Type", FORM, 415),
        "json: gzip": _pool(b"\x1f\x8b\x08\0", None, status=400),
        "pool name: null": _named(None),
        "pool name: a number": _named(7),
        "pool name: a boolean": _named(True),
        "pool name: a list": _named(["a"]),
        "pool name: an object": _named({"a": 1}),
        "pool name: empty": _named(""),
        "pool name: a space": _named(" "),
        "pool name: capitals": _named("Pool"),
        "pool name: umlaut": _named("röntgen"),
        "pool name: another script": _named("池"),
        "pool name: a path": _named("../../etc"),
        "pool name: dots": _named(".."),
        "pool name: a hyphen first": _named("-a"),
        "pool name: 64 characters": _named("a" * 64),
        "pool name: 60,000 characters": _named("a" * 60_000),
        "pool name: NUL": _named("a\0b"),
        "pool name: line break at its end": _named("a\n"),
        "pool name: header injection": _named("a\r\nSet-Cookie: x=1"),
        "pool name: half a surrogate": _pool(b'{"name": "\\ud800"}', None, status=422),
        "pool name: infinity": _pool(b'{"name": 1e999}'),
        "pool name: not a number": _pool(b'{"name": NaN}'),
    }


def queries() -> dict[str, BadRequest]:
    """Cursors, limits and filters of the lists."""
    found = {}
    for limit in ("0", "-1", "1001", "1.5", "x", "", "9" * 40, "%00", "1;2", "true", "0x10", "NaN"):
        found[f"limit {limit[:8]!r}"] = BadRequest("GET", f"/pools?limit={limit}", field="limit")
    found["limit twice"] = BadRequest("GET", "/pools?limit=1&limit=1", field="limit")
    found["status twice"] = BadRequest("GET", "/jobs?status=queued&status=running", field="status")
    found["cursor twice"] = BadRequest("GET", "/audit?cursor=2&cursor=1", field="cursor")
    for what, cursor in {
        "NUL": "%00",
        "line break": "%0d%0aSet-Cookie:%20x",
        "201 characters": "a" * 201,
        "an escape": "%1b%5b31m",
    }.items():
        found[f"cursor of pools: {what}"] = BadRequest("GET", f"/pools?cursor={cursor}", field="cursor")
    for what, cursor in {
        "letters": "abc",
        "negative": "-1",
        "a float": "1.5",
        "too large": "9" * 30,
        "digits of another script": quote("１２"),
        "sql": quote("1' OR 1=1 --"),
        "exponent": "1e3",
    }.items():
        found[f"cursor of images: {what}"] = BadRequest("GET", f"/pools/held/images?cursor={cursor}", field="cursor")
        found[f"cursor of jobs: {what}"] = BadRequest("GET", f"/jobs?cursor={cursor}", field="cursor")
    for name, value in (("kind", "all"), ("status", "done"), ("status", "%00"), ("kind", "Synthesis")):
        found[f"{name} {value!r}"] = BadRequest("GET", f"/jobs?{name}={value}", field=name)
    for path, name in {
        "/pools": "name",
        "/pools/held/images": "offset",
        "/jobs": "state",
        f"/jobs/{'0' * 32}/samples": "page",
        "/audit": "api_key",
    }.items():  # ignored, each would let a client take a list for another
        found[f"unknown parameter of {path[:20]}"] = BadRequest("GET", f"{path}?{name}=failed", field=name)
    found["an event id of 201 characters"] = BadRequest(
        "GET", f"/jobs/{'0' * 32}/events", headers={"Last-Event-ID": "1" * 201}, statuses=(404, 422)
    )
    return found


def addresses() -> dict[str, BadRequest]:
    """Ids and names in paths, and methods."""
    jobs = ("x", "0" * 32, "0" * 31, "A" * 32, "%00", "..%2f..%2fetc%2fpasswd", "%0d%0aX:1", quote("池"), "a" * 5000)
    pools = ("nowhere", "Held", "..", "%2e%2e%2fheld", "%00", "held%20", "held%0a", "a" * 64, quote("röntgen"), "%ff")
    images = ("-1", "0", "99", str(2**63), "9" * 40, "x", "1.5", "1e3", "%00")
    found = {f"job {name[:12]!r}": BadRequest("GET", f"/jobs/{name}", statuses=(404,)) for name in jobs}
    found |= {f"pool {name[:12]!r}": BadRequest("GET", f"/pools/{name}", statuses=(404,)) for name in pools}
    for image in images:
        found[f"image {image[:12]!r}"] = BadRequest("GET", f"/pools/held/images/{image}", statuses=(404,))
    found |= {
        "sample of no job": BadRequest("GET", f"/jobs/{'0' * 32}/samples/0/image", statuses=(404,)),
        "sample x": BadRequest("GET", f"/jobs/{'0' * 32}/samples/x/mask", statuses=(404,)),
        "a file above the static ones": BadRequest("GET", "/static/..%2fmain.py", statuses=(404,)),
        "a static NUL": BadRequest("GET", "/static/%00", statuses=(404,)),
        "dataset of no job": BadRequest("GET", f"/jobs/{'0' * 32}/dataset", statuses=(404,)),
        "report of no job": BadRequest("GET", f"/jobs/{'0' * 32}/report.csv", statuses=(404,)),
        "cancel of no job": BadRequest("POST", f"/jobs/{'0' * 32}/cancel", statuses=(404,)),
        "delete of no job": BadRequest("DELETE", f"/jobs/{'0' * 32}", statuses=(404,)),
        "delete of no pool": BadRequest("DELETE", "/pools/nowhere", statuses=(404,)),
        "an address of nothing": BadRequest("GET", "/nowhere", statuses=(404,)),
        "put": BadRequest("PUT", "/pools", statuses=(405,)),
        "get where one posts": BadRequest("GET", "/synthesize", statuses=(405,)),
        "patch": BadRequest("PATCH", "/jobs", statuses=(405,)),
        "trace": BadRequest("TRACE", "/", statuses=(405,)),
        "a method of its own": BadRequest("HACK", "/pools", statuses=(405,)),
        "a method of 1,000 letters": BadRequest("A" * 1000, "/pools", statuses=(405,)),
        "past the end of the file": BadRequest(
            "GET", "/pools/held/images/1", headers={"Range": "bytes=99999999-"}, statuses=(416, 404)
        ),
        "the last 0 bytes": BadRequest(
            "GET", "/pools/held/images/1", headers={"Range": "bytes=-0"}, statuses=(416, 404)
        ),
    }
    return found


def _broken(
    method: str = "GET",
    path: str = "/livez",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    length: str | None = None,
) -> BadRequest:
    return BadRequest(method, path, body, headers or {}, (400, 411, 413, 414, 431, 501), below=True, length=length)


def servers() -> dict[str, BadRequest]:
    """Broken HTTP, refused by the server itself."""
    return {
        "a header with NUL": _broken(headers={"X-Bad": "a\0b"}),
        "a header name with a space": _broken(headers={"X Bad": "a"}),
        "a length of words": _broken("POST", "/pools", b"{}", length="two"),
        "a negative length": _broken("POST", "/pools", b"{}", length="-1"),
        "two lengths": _broken("POST", "/pools", b"{}", {"Content-Length": "1"}),
        "an unknown transfer encoding": _broken("POST", "/pools", b"{}", {"Transfer-Encoding": "gzip"}),
    }


def part(disposition: str, content: bytes = b"x", more: str = "") -> bytes:
    return f"--xyz\r\nContent-Disposition: {disposition}\r\n{more}\r\n".encode("latin-1") + content + b"\r\n"


def _form(
    body: bytes, field: str | None = None, kind: str = FORM, statuses: tuple[int, ...] = (400, 422)
) -> BadRequest:
    return BadRequest("POST", "/pools/held/images", body, {"Content-Type": kind}, statuses, field)


def forms() -> dict[str, BadRequest]:
    file = part('form-data; name="images"; filename="a.png"')
    archive = part('form-data; name="archive"; filename="a"')
    end = b"--xyz--\r\n"
    return {
        "form: none": _form(b""),
        "form: of no part": _form(end, "images", statuses=(422,)),
        "form: another boundary": _form(file + end, None, "multipart/form-data; boundary=abc", (400,)),
        "form: no boundary": _form(file + end, None, "multipart/form-data", (400,)),
        "form: an empty boundary": _form(file + end, None, 'multipart/form-data; boundary=""', (400,)),
        "form: a boundary of 300 characters": _form(file, None, f"multipart/form-data; boundary={'b' * 300}", (400,)),
        "form: a boundary with a line break": _form(file, None, 'multipart/form-data; boundary="a b\xff"', (400,)),
        "form: mixed": _form(file + end, "Content-Type", "multipart/mixed; boundary=xyz", (415,)),
        "form: urlencoded": _form(b"images=1", "Content-Type", "application/x-www-form-urlencoded", (415,)),
        "form: json": _form(b"{}", "Content-Type", "application/json", (415,)),
        "form: an image": _form(b"\x89PNG", "Content-Type", "image/png", (415,)),
        "form: a kind of rubbish": _form(file + end, "Content-Type", "\xff/\xff;;;=", (415,)),
        "form: not closed": _form(file, None, statuses=(400,)),
        "form: cut in a head": _form(file + b"--xyz\r\nContent-Dis", None, statuses=(400,)),
        "form: words before": _form(b"preamble " + file + end, None, statuses=(400,)),
        "form: a part without a head": _form(b"--xyz\r\n\r\nx\r\n" + end, None, statuses=(400,)),
        "form: a part without a name": _form(part("form-data") + end, None, statuses=(400,)),
        "form: a part with an empty name": _form(part('form-data; name=""') + end, None, statuses=(400,)),
        "form: an attachment": _form(part('attachment; filename="a.png"') + end, None, statuses=(400,)),
        "form: a head of 100 kB": _form(part("form-data", more=f"X: {'a' * 100_000}\r\n") + end, None, statuses=(400,)),
        "form: a head without a colon": _form(b"--xyz\r\nrubbish\r\n\r\nx\r\n" + end, None, statuses=(400,)),
        "form: a name of 10,000 characters": _form(part(f'form-data; name="{"n" * 10_000}"') + end, "nnnnnn"),
        "form: a name with NUL": _form(part('form-data; name="a\0b"') + end),
        "form: a name in latin-1": _form(part('form-data; name="\xe9t\xe9"') + end, "été"),
        "form: images as text": _form(part('form-data; name="images"') + end, "images"),
        "form: an unknown field": _form(file + part('form-data; name="colour"') + end, "colour"),
        "form: an unknown file": _form(part('form-data; name="image"; filename="a.png"') + end, "image"),
        "form: an archive beside images": _form(file + archive + end, "archive"),
        "form: two archives": _form(archive * 2 + end, "archive"),
        "form: an archive that is none": _form(archive + end, "archive"),
        "form: 101 texts": _form(b"".join(part(f'form-data; name="t{n}"') for n in range(101)) + end, "t100"),
        "form: a text of 5 kB": _form(part('form-data; name="images"', b"a" * 5000) + end, "images"),
        "form: a file above": _form(part('form-data; name="images"; filename="../a.png"') + end, "images"),
        "form: a file name of 300": _form(part(f'form-data; name="images"; filename="{"a" * 300}"') + end, "images"),
        "form: into no pool": BadRequest(
            "POST", "/pools/nowhere/images", file + end, {"Content-Type": FORM}, statuses=(404,)
        ),
        "form: evaluation of nothing": BadRequest(
            "POST", "/evaluations", end, {"Content-Type": FORM}, statuses=(422,), field="real_image"
        ),
        "form: evaluation of no job": BadRequest(
            "POST", "/evaluations", part('form-data; name="synthesis"') + end, {"Content-Type": FORM}, field="synthesis"
        ),
        "form: evaluation of 25 jobs": BadRequest(
            "POST",
            "/evaluations",
            part('form-data; name="synthesis"', b",".join([b"0" * 32] * 25)) + end,
            {"Content-Type": FORM},
            field="synthesis",
        ),
        "idempotency key: empty": _with_key(""),
        "idempotency key: 256 characters": _with_key("k" * 256),
        "idempotency key: a space": _with_key("a b"),
        "idempotency key: another script": _with_key("\xfc"),
    }


def _with_key(key: str) -> BadRequest:
    body = part('form-data; name="image"; filename="a.png"') + b"--xyz--\r\n"
    return BadRequest(
        "POST", "/synthesize", body, {"Content-Type": FORM, "Idempotency-Key": key}, field="Idempotency-Key"
    )


def requests() -> dict[str, BadRequest]:
    """All of them."""
    return jsons() | queries() | addresses() | servers() | forms()

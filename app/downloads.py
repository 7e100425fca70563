"""A blob as an HTTP answer: strong ETag, one byte range, and constant memory whatever its size."""

import re
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from app.blobs import Blobs
from app.problems import Problem

IMMUTABLE = "private, max-age=31536000, immutable"  # addressed by content: it never changes
REVALIDATE = "private, no-cache"  # kept, but asked for again by ETag
ADDRESS_SECONDS = 900.0  # within which a client must begin its transfer from the bucket


@dataclass(frozen=True)
class Download:
    """A blob and how it is served; `sha256` is of its bytes and becomes the ETag."""

    key: str
    sha256: str
    media_type: str
    cache_control: str
    disposition: str | None = None  # the Content-Disposition; without one it is shown, not saved


def redirect(request: Request, blobs: Blobs, download: Download) -> Response:
    """307 to the bucket for a GET, with the ETag that the bucket does not know; from a folder as `serve` does."""
    etag = f'"{download.sha256}"'
    address = blobs.address(download.key, ADDRESS_SECONDS)
    if address is None or request.method != "GET" or client_has(request, etag):
        return serve(request, blobs, download)
    blobs.size(download.key)  # raises BlobMissing here, where the answer can say so
    return RedirectResponse(address, 307, headers={"ETag": etag, "Cache-Control": "no-store"})


def serve(request: Request, blobs: Blobs, download: Download) -> Response:
    """200, 206, 304 or 416 as RFC 9110 has it, for GET and HEAD. Blocking: call it off the event loop."""
    etag = f'"{download.sha256}"'
    # What a browser keeps for one key it gives to no other user of it.
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": download.cache_control, "Vary": "Authorization"}
    if client_has(request, etag):
        return Response(status_code=304, headers=headers)
    if download.disposition:
        headers["Content-Disposition"] = download.disposition

    size = blobs.size(download.key)
    wanted = wanted_range(request, etag, size) if request.method == "GET" else None
    start, end = wanted or (0, size)
    headers["Content-Length"] = str(end - start)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if wanted else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=download.media_type)
    body = blobs.stream(download.key, start, end)
    return StreamingResponse(body, status_code=status, headers=headers, media_type=download.media_type)


def client_has(request: Request, etag: str) -> bool:
    """Whether it has this already: If-None-Match, on one line or several, compared weakly as it asks for."""
    tags = [tag.strip().removeprefix("W/") for tag in ",".join(request.headers.getlist("if-none-match")).split(",")]
    return "*" in tags or etag in tags


def wanted_range(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """(start, end) of the one range asked for, end exclusive; None: the whole. Raises Problem 416.

    Malformed ranges, several ranges and a stale If-Range all get the whole, which RFC 9110 allows.
    """
    if_range = request.headers.get("if-range")
    if if_range is not None and if_range.strip() != etag:
        return None
    parsed = re.fullmatch(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*", request.headers.get("range", ""), re.ASCII)
    if parsed is None or not any(parsed.groups()):
        return None
    first, last = parsed.groups()
    if first and last and int(first) > int(last):
        return None
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= size or start >= end:
        raise Problem(
            416,
            "range-not-satisfiable",
            f"the range {request.headers['range']} lies outside the {size} bytes there are",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end

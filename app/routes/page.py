"""The page at /, the reference at /docs, and what the two are made of; nothing comes from elsewhere."""

from pathlib import Path

from fastapi import Request
from fastapi.responses import Response

from app.downloads import client_has
from app.problems import Problem, shown
from app.routes.router import Router
from models import pixels

router = Router(include_in_schema=False)

STATIC = Path(__file__).parent.parent / "static"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css",
}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@router.get("/")
def page(request: Request) -> Response:
    return static_file(request, "index.html")


@router.get("/docs")
def reference(request: Request) -> Response:
    return static_file(request, "docs.html")


@router.get("/static/{name}")
def asset(request: Request, name: str) -> Response:
    return static_file(request, name)


@router.get("/favicon.ico")
def icon() -> Response:
    return Response(status_code=204)


def static_file(request: Request, name: str) -> Response:
    known = {path.name: path for path in STATIC.iterdir() if path.suffix in MEDIA_TYPES}
    if name not in known:
        raise Problem(404, "not-found", f"there is no file {shown(name)!r} here")
    content = known[name].read_bytes()
    etag = f'"{pixels.sha256(content)}"'
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache", "ETag": etag}
    if client_has(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=MEDIA_TYPES[known[name].suffix], headers=headers)

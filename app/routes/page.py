"""The page at /, the reference at /docs, and what the two are made of; nothing comes from elsewhere."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from app.problems import Problem

router = APIRouter(include_in_schema=False)

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
def page() -> Response:
    return static_file("index.html")


@router.get("/docs")
def reference() -> Response:
    return static_file("docs.html")


@router.get("/static/{name}")
def asset(name: str) -> Response:
    return static_file(name)


@router.get("/favicon.ico")
def icon() -> Response:
    return Response(status_code=204)


def static_file(name: str) -> Response:
    known = {path.name: path for path in STATIC.iterdir() if path.suffix in MEDIA_TYPES}
    if name not in known:
        raise Problem(404, "not-found", f"there is no file {name[:80]!r} here")
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}
    return FileResponse(known[name], media_type=MEDIA_TYPES[known[name].suffix], headers=headers)

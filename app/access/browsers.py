"""Where nobody is asked for a key: what a page of another site may do here through somebody's browser. Nothing.

A browser posts any page's form to any address, and lets a page read from whatever address its host's DNS names at the
moment (DNS rebinding). With keys neither is of use: no page of another site has one.
"""

from fastapi import Request

from app.problems import Problem
from app.webhooks.hosts import ENTRY, is_loopback

SAFE_METHODS = ("GET", "HEAD")
OWN = ("same-origin", "none")  # what browsers say of our page, and of an address typed in; other clients say nothing


def refuse_other_sites(request: Request) -> None:
    """Raises Problem 403."""
    host = request.headers.get("Host", "localhost")
    name = ENTRY.fullmatch(host)
    if name is None or not is_loopback(name[1].lower()):
        raise Problem(
            403,
            "forbidden",
            f"the service is called {host!r} here, and without API keys it answers to localhost and 127.0.0.1 alone; "
            "use one of these, or ask for keys: PANSYNTH_API_KEYS_REQUIRED=true",
        )
    if request.method not in SAFE_METHODS and not is_of_our_page(request, host):
        raise Problem(
            403,
            "forbidden",
            "this comes from a page of another site; use this service's own page or a client that is not a browser, "
            "or ask for keys: PANSYNTH_API_KEYS_REQUIRED=true",
        )


def is_of_our_page(request: Request, host: str) -> bool:
    """Whether it is, or comes from no browser. Browsers older than Sec-Fetch-Site (2023) name their page in Origin."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site in OWN
    return origin is None or origin.partition("://")[2] == host

"""Where webhooks may go: to hosts and ports that the operator names, one by one.

A client chooses the address that this service calls, so anything else would let it knock on doors that only this
service can reach. A name is compared, not the address behind it: whoever names a host trusts its DNS.
"""

import re
from collections.abc import Collection
from ipaddress import ip_address

MAX_URL_LENGTH = 2000
HOST = r"[a-z0-9.-]+|\[[0-9a-f:.]+\]"
ENTRY = re.compile(rf"({HOST})(?::([0-9]{{1,5}}))?", re.ASCII | re.IGNORECASE)
# So narrow that no two parsers can see different hosts in it: no user, no backslash, no character to decode.
URL = re.compile(rf"(https?)://({HOST})(?::([0-9]{{1,5}}))?(?:[/?][!-~]*)?", re.ASCII | re.IGNORECASE)
MAX_PORT = 65535
PORTS = {"https": 443, "http": 80}


def receiver_of(entry: str) -> str:
    """`host:port` of an entry such as `hooks.example.org` (port 443) or `127.0.0.1:9000`. Raises ValueError."""
    found = ENTRY.fullmatch(entry)
    if found is None:
        raise ValueError(f"{entry!r} names no host; write hooks.example.org or hooks.example.org:8443, with commas")
    port = int(found[2] or PORTS["https"])
    if not 0 < port <= MAX_PORT:
        raise ValueError(f"{entry!r} names port {port}; ports go from 1 to {MAX_PORT}")
    return f"{found[1].lower()}:{port}"


def refusal(url: str, receivers: Collection[str]) -> str | None:
    """Why no webhook may be sent to `url`, with the remedy; None if it may. receivers: `host:port` each."""
    if not receivers:
        return "is not possible here: no receiver is allowed by PANSYNTH_WEBHOOK_HOSTS; leave it out and ask the job"
    if len(url) > MAX_URL_LENGTH:
        return f"has {len(url)} characters, at most {MAX_URL_LENGTH} are kept; shorten it"
    found = URL.fullmatch(url)
    if found is None:
        return "should be a URL such as https://hooks.example.org/path, of ASCII and without user or password"
    scheme, host = found[1].lower(), found[2].lower()
    receiver = f"{host}:{int(found[3] or PORTS[scheme])}"
    if receiver not in receivers:
        return f"may not go to {receiver}; have it added to PANSYNTH_WEBHOOK_HOSTS, or name a receiver that is there"
    if scheme == "http" and not is_loopback(host):
        return "is not encrypted; use https"
    return None


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

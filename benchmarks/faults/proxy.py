"""A proxy in front of an object store that can be told to answer 500, late, or with bytes missing."""

import http.client
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Mood = Literal["well", "500", "slow", "truncated"]
SOMETIMES = 0.3  # of the requests, so that work and trouble alternate
LATE_SECONDS = 2.0
OWN = ("connection", "transfer-encoding", "content-length", "date", "server")


class Proxy:
    """Listens on a port of its own until `close`."""

    def __init__(self, endpoint: str, seed: int) -> None:
        self.mood: Mood = "well"
        self.injected = 0
        address, chance, lock = urlsplit(endpoint).netloc, random.Random(seed), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    mood = proxy.mood if chance.random() < SOMETIMES else "well"
                    proxy.injected += mood != "well"
                if mood == "500":
                    return self.answer(500, {}, b"trouble")
                if mood == "slow":
                    time.sleep(LATE_SECONDS)
                wire = http.client.HTTPConnection(address, timeout=60)
                wire.request(self.command, self.path, body, dict(self.headers))
                answer = wire.getresponse()
                content = answer.read()
                headers = {name: value for name, value in answer.getheaders() if name.lower() not in OWN}
                if self.command == "HEAD":
                    headers["Content-Length"] = answer.getheader("Content-Length", "0")
                    return self.answer(answer.status, headers, None)
                if mood == "truncated" and self.command == "GET" and len(content) > 1 and "list-type" not in self.path:
                    content = content[: len(content) // 2]  # and says that this is all: only sha256 can tell
                    headers.pop("Content-Range", None)
                self.answer(answer.status, headers, content)

            def answer(self, status: int, headers: dict[str, str], content: bytes | None) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if content is not None:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content or b"")

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None: ...  # whom it served was killed: that is the soak

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

"""A real browser: Chromium without a window, driven by its DevTools protocol on a pipe."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_SECONDS = 60.0

# Before the page's own scripts: its clock runs faster, and a test sees its requests and brings trouble to them.
# `trouble` maps a path's pattern to: "hold" (until release()), "lose" the answer, or the status of a refusal.
AROUND_THE_PAGE = """
const [ask, every] = [fetch, setInterval];
const held = [];
Object.assign(window, {
  setInterval: (action, milliseconds) => every(action, milliseconds / 20),
  requests: [], errors: [], trouble: JSON.parse(localStorage.trouble ?? "{}"),
  release: () => { trouble = {}; held.splice(0).forEach((go) => go()); },
  fetch: async (path, options = {}) => {
    requests.push({ path, ...options });
    const [, kind] = Object.entries(trouble).find(([pattern]) => new RegExp(pattern).test(path)) ?? [];
    if (kind === "hold") await new Promise((go) => held.push(go));
    if (Number(kind)) return new Response('{"title": "No", "detail": "refused by the test"}', { status: kind });
    const answer = await ask(path, options);
    if (kind === "lose") throw new TypeError("lost on the way");
    return answer;
  },
});
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
"""

STOP_TIMERS = "for (let timer = 1; timer < 1000; timer++) clearInterval(timer)"

# Said to those whose page another one takes the place of while they ask it.
LEFT = (
    "Inspected target navigated or closed",
    "Execution context was destroyed.",
    "Cannot find context with specified id",
)


class PageLeft(Exception):
    """Another page took the place of this one before it answered."""


@dataclass
class Browser:
    orders: BinaryIO
    answers: BinaryIO
    count: int = 0

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Gives an order and returns its result; raises PageLeft."""
        self.count += 1
        order = {"id": self.count, "method": method, "params": parameters}
        self.orders.write(json.dumps(order | ({"sessionId": session} if session else {})).encode() + b"\0")
        self.orders.flush()
        while (answer := self._message()).get("id") != self.count:
            pass  # what happens meanwhile is asked of the page itself
        if answer.get("error", {}).get("message") in LEFT:
            raise PageLeft(answer["error"]["message"])
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _message(self) -> dict[str, Any]:
        raw = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            raw += byte
        message: dict[str, Any] = json.loads(raw)
        return message


@dataclass
class Tab:
    browser: Browser
    session: str
    origin: str

    def open(self, path: str = "/") -> None:
        self.browser.call("Page.navigate", self.session, url=self.origin + path)
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise; raises PageLeft."""
        options = {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self.browser.call("Runtime.evaluate", self.session, **options)
        assert "exceptionDetails" not in answer, (script, answer)
        return answer["result"].get("value")

    def leave(self, script: str) -> None:
        """Runs what leads to another page, which may come before the answer."""
        with suppress(PageLeft):
            self.run(script)

    def until(self, script: str) -> None:
        """Waits until the expression is true, on this page or on one that takes its place."""
        end = time.monotonic() + WAIT_SECONDS
        while not self._holds(script):
            assert time.monotonic() < end, f"never true: {script}; the page says {self.run('document.body.innerText')}"
            time.sleep(0.05)

    def _holds(self, script: str) -> bool:
        with suppress(PageLeft):
            return bool(self.run(f"Boolean({script})"))
        return False

    def text(self, selector: str) -> str:
        """What of an element can be read; empty while it is hidden."""
        return str(self.run(f"document.querySelector({selector!r}).innerText"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({selector!r}).click()")

    def narrow(self, width: int) -> None:
        """Shows the page as wide as on a phone, in CSS pixels."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        self.browser.call("Emulation.setDeviceMetricsOverride", self.session, **size)

    def press(self, key: str, code: int) -> None:
        """Presses a key where the focus is; `code` is its Windows virtual key code."""
        for kind in ("keyDown", "keyUp"):
            self.browser.call("Input.dispatchKeyEvent", self.session, type=kind, key=key, windowsVirtualKeyCode=code)

    def choose(self, selector: str, *files: Path) -> None:
        """Gives a file input the files, as a user's choice does."""
        expression = f"document.querySelector({selector!r})"
        found = self.browser.call("Runtime.evaluate", self.session, expression=expression)["result"]
        self.browser.call("DOM.setFileInputFiles", self.session, files=[*map(str, files)], objectId=found["objectId"])

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Nobody sees the page: its window is minimised."""
        window = self.browser.call("Browser.getWindowForTarget", self.session)["windowId"]
        self.browser.call("Browser.setWindowBounds", windowId=window, bounds={"windowState": "minimized"})
        self.until("document.hidden")
        yield
        self.browser.call("Browser.setWindowBounds", windowId=window, bounds={"windowState": "normal"})


@contextmanager
def tab(browser: Browser, origin: str) -> Iterator[Tab]:
    """A tab with its own storage."""
    context = browser.call("Target.createBrowserContext")["browserContextId"]
    target = browser.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    browser.call("Page.enable", session)
    browser.call("Page.addScriptToEvaluateOnNewDocument", session, source=AROUND_THE_PAGE)
    try:
        yield Tab(browser, session, origin)
    finally:
        browser.call("Target.disposeBrowserContext", browserContextId=context)


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser of its own, its profile in the folder."""
    assert CHROMIUM
    orders_out, orders_in = os.pipe()
    answers_out, answers_in = os.pipe()
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]
    command = [CHROMIUM, *switches, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
    # The browser reads from 3 and writes to 4.
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$0" "$@" 3<&{orders_out} 4>&{answers_in}', *command],
        pass_fds=(orders_out, answers_in),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(orders_out)
    os.close(answers_in)
    with os.fdopen(orders_in, "wb") as orders, os.fdopen(answers_out, "rb") as answers:
        browser = Browser(orders, answers)
        try:
            yield browser
            browser.call("Browser.close")
        finally:
            process.terminate()
            process.wait(60)

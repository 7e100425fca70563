"""A browser, and its tab at the real API; skipped where there is no Chromium."""

from collections.abc import Iterator

import pytest

from tests.browser import CHROMIUM, Browser, Tab, browsing, tab
from tests.serving import Served


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with browsing(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Tab]:
    with tab(browser, f"http://127.0.0.1:{served.port}") as opened:
        yield opened


@pytest.fixture
def guarded_page(browser: Browser, guarded: Served) -> Iterator[Tab]:
    """Of a service that asks for keys."""
    with tab(browser, f"http://127.0.0.1:{guarded.port}") as opened:
        yield opened

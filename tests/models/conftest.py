"""Small work for small tests: threads that wait for one another cost more than these networks do."""

from collections.abc import Iterator

import pytest

from tests.threads import threads


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield

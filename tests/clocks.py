"""The clock of the machine that the API of a test runs on, set wrong; that of the database stays right."""

from datetime import datetime, timedelta, tzinfo

import pytest


def set_clock(monkeypatch: pytest.MonkeyPatch, ahead: timedelta, *modules: str) -> None:
    """For these modules of `app`."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Wrong":
            return super().now(tz) + ahead

    for module in modules:
        monkeypatch.setattr(f"app.{module}.datetime", Wrong, raising=False)

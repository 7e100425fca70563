"""The router of every room."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Router(APIRouter):
    """Its GET routes answer HEAD, too, which RFC 9110 asks of every server; the server leaves the body out."""

    def get(self, path: str, **described: Any) -> Callable[[Endpoint], Endpoint]:
        def register(endpoint: Endpoint) -> Endpoint:
            super(Router, self).get(path, **described)(endpoint)  # first: its method is named in an answer 405
            return self.head(path, **described | {"include_in_schema": False})(endpoint)

        return register

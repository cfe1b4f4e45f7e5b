"""Where a page is: its path and query, and the same page with some of it changed. Every filter is in the URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request

OF_A_PLACE = ("after", "page")  # where in a list one is: another filter begins at its top


@dataclass(frozen=True, kw_only=True)
class Address:
    """A page's own address."""

    path: str
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, request: Request) -> Address:
        """The address that was asked for; what is empty, and the format, are left out."""
        given = {name: value for name, value in request.query_params.items() if value and name != "format"}
        return cls(path=request.url.path, parameters=given)

    def url(self, **changes: Any) -> str:
        """The same page with other filters, from its top; None takes one away. Its format stays the page's own."""
        kept = {name: value for name, value in self.parameters.items() if name not in OF_A_PLACE}
        return _query(kept, changes)

    def also(self, **changes: Any) -> str:
        """The very same place in the list, with some of its query changed."""
        return _query(self.parameters, changes)

    def kept(self, but: Sequence[str]) -> list[tuple[str, str]]:
        """What a form of the fields `but` has to keep of the query."""
        return [(name, value) for name, value in self.parameters.items() if name not in but and name not in OF_A_PLACE]


def path(*parts: object) -> str:
    """A path of these parts, each escaped: `/records/acme/customer/a%2Fb`."""
    return "/" + "/".join(quote(str(part), safe="") for part in parts)


def with_query(path: str, values: Mapping[str, Any]) -> str:
    """A path with a query; what is empty is left out."""
    query = _query(values, {})
    return path if query == "?" else path + query


def _query(kept: Mapping[str, str], changes: Mapping[str, Any]) -> str:
    changed = {**kept, **changes}
    return "?" + urlencode({name: value for name, value in changed.items() if value is not None and value != ""})

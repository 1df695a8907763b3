"""Credentials as a document asks for them, with values from secrets."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal
from urllib.parse import quote

from autoglm._dataclasses import dataclass
from autoglm.model import Json
from autoglm_server.tools.providers.openapi.document import Document, DocumentError

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a credential is shown. ``name`` is of the header, of the query's parameter or of the cookie."""

    kind: Literal["header", "query", "cookie", "bearer", "basic"]
    name: str = ""


@dataclass(slots=True)
class Shown:
    """Where the credentials of one request go."""

    headers: Headers = field(default_factory=list)
    query: list[tuple[str, str]] = field(default_factory=list)
    cookies: list[str] = field(default_factory=list)

    def add(self, scheme: Scheme, value: str) -> None:
        """Show one credential."""
        match scheme.kind:
            case "header":
                self.headers.append((scheme.name, value))
            case "query":
                self.query.append((quote(scheme.name, safe=""), quote(value, safe="")))
            case "cookie":
                self.cookies.append(f"{scheme.name}={quote(value, safe='')}")
            case "bearer":
                self.headers.append(("Authorization", f"Bearer {value}"))
            case "basic":
                self.headers.append(("Authorization", f"Basic {base64.b64encode(value.encode()).decode()}"))


def read_schemes(document: Document) -> dict[str, Scheme]:
    """Give the security schemes of a document; those of kinds that are not known are left out."""
    components = document.root.get("components")
    listed = components.get("securitySchemes") if isinstance(components, dict) else None
    found: dict[str, Scheme] = {}
    for name, value in (listed if isinstance(listed, dict) else {}).items():
        try:
            scheme = _scheme(document.resolved(value))
        except DocumentError:
            continue

        if scheme is not None:
            found[name] = scheme

    return found


def chosen(alternatives: Json, given: Mapping[str, str], schemes: Mapping[str, Scheme]) -> Sequence[str]:
    """Give the schemes to show for a request: of the first alternative all of whose credentials the settings give."""
    if not isinstance(alternatives, list):
        return ()

    for alternative in alternatives:
        names = tuple(alternative) if isinstance(alternative, dict) else ()
        if names and all(name in given and name in schemes for name in names):
            return names

    return ()


def _scheme(value: Mapping[str, Json]) -> Scheme | None:
    match value:
        case {"type": "apiKey", "in": "header" | "query" | "cookie" as place, "name": str(name)}:
            return Scheme(place, name)
        case {"type": "http", "scheme": str(scheme)} if scheme.lower() == "basic":
            return Scheme("basic")
        case {"type": "http"} | {"type": "oauth2"} | {"type": "openIdConnect"}:
            return Scheme("bearer")
        case _:
            return None

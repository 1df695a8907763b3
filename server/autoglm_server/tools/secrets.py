"""Secrets by reference: ``secret://NAME``, where a tool's schema says that a secret is taken, or in a provider's settings.

A reference is what is planned, journaled, approved and shown. The value is read when a call is made, given to the provider,
and taken out again, by value, of all that the call gives: its output, its failure, its progress. Logs are cleaned of all
values as they are written.

A place takes a secret when its JSON Schema has ``"format": "password"``. A value that a tool passes on changed (encrypted,
reversed, cut into pieces) cannot be recognised.
"""

from __future__ import annotations

import base64
import dataclasses
import fnmatch
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

from autoglm._dataclasses import dataclass
from autoglm.model import Failure, Json, JsonObject, ToolProgress, ToolResult, Violation
from autoglm_server.tools.fields import place
from autoglm_server.tools.references import SECRET, invalid_arguments
from autoglm_server.tools.tool import Invocation, ToolCallError

HIDDEN: Final = "***"
"""What stands where a secret stood. Shorter than any secret, so nothing grows past its limit."""
SCHEME: Final = "secret://"
"""What a reference begins with."""
LENGTH_MIN: Final = 6
"""The shortest secret, in characters: a shorter one would be found, and hidden, in places it does not stand at."""
BYTES_MAX: Final = 64 << 10
"""The largest secret."""
_VALUES_MAX = 4
_PIECE_MIN = 16
_SCHEMAS_MAX = 1000

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

_log = logging.getLogger(__name__)

Place = tuple[str | int, ...]


class SecretError(ValueError):
    """A secret has no value; the message is a sentence without it."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a secret is: ``env:VARIABLE`` or ``file:PATH``. ``tools`` are globs of those whose arguments may name it."""

    uri: str
    tools: Sequence[str] = ("*",)

    def read(self, environment: Mapping[str, str]) -> str:
        """Give the value as it is now, without a newline at its end.

        Raises:
            SecretError: there is none.
        """
        kind, _, where = self.uri.partition(":")
        if kind == "env":
            if where not in environment:
                raise SecretError(f"the environment has no variable {where}")

            value = environment[where]
        else:
            try:
                with Path(where).expanduser().open("rb") as file:
                    value = file.read(BYTES_MAX + 1).decode()
            except (OSError, UnicodeDecodeError) as error:
                raise SecretError(
                    f"{where} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}"
                ) from None

        try:
            value.encode()
        except UnicodeEncodeError:  # bytes of the environment that are no text
            raise SecretError(f"{where} cannot be read: not UTF-8") from None

        value = value.removesuffix("\n").removesuffix("\r")
        if not LENGTH_MIN <= len(value) <= BYTES_MAX:
            raise SecretError(f"it must have {LENGTH_MIN} to {BYTES_MAX} characters, so that it can be hidden")

        return value


@dataclass(slots=True)
class _Hidden:
    """What to take out of texts: every value that was ever read, as it is and as it may be written."""

    values: dict[str, list[str]] = field(default_factory=dict)
    written: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None

    def add(self, name: str, value: str) -> None:
        known = self.values.setdefault(name, [])
        if value in known:
            return

        # After a change both are about: calls that began before still have the old one.
        self.values[name] = [*known, value][-_VALUES_MAX:]
        self.written = frozenset(
            form for values in self.values.values() for value in values for form in _written(value)
        )
        longest_first = sorted(self.written, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)))


class Secrets:
    """The secrets that the settings name."""

    def __init__(
        self, sources: Mapping[str, Source] | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Take the secrets' names and sources; their values are read by :meth:`load`, and again for each use.

        Raises:
            ValueError: a name or a source is none.
        """
        self._sources: dict[str, Source] = {}
        self._environment = os.environ if environment is None else environment
        self._hidden = _Hidden()
        self.replace(sources or {})

    def replace(self, sources: Mapping[str, Source]) -> None:
        """Take other names and sources from now on; what was read before stays hidden.

        Raises:
            ValueError: a name or a source is none.
        """
        for name, source in sources.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"secret {name!r}: write 1 to 64 of [A-Za-z0-9_.-] as its name")

            if not re.fullmatch(r"(env|file):.+", source.uri):
                raise ValueError(f"secret {name!r}: {source.uri!r} is no source; write env:VARIABLE or file:PATH")

        self._sources = dict(sources)

    @property
    def none(self) -> bool:
        """Whether no secret is named, and none was ever read."""
        return not self._sources and self._hidden.pattern is None

    def load(self) -> None:
        """Read all values, so that none is shown even by a call that was not given it. One that is missing is logged."""
        for name in self._sources:
            try:
                self.value(name)
            except SecretError as error:
                _log.warning("%s", error)

    def value(self, name: str) -> str:
        """Give the value that a secret has now.

        Raises:
            SecretError: there is no such secret, or it has no value.
        """
        source = self._sources.get(name)
        if source is None:
            raise SecretError(f"there is no secret {name!r} in the settings")

        try:
            value = source.read(self._environment)
        except SecretError as error:
            raise SecretError(f"the secret {name!r} has no value: {error}") from None

        self._hidden.add(name, value)
        return value

    def expand(self, text: str) -> str:
        """Give a text of the settings with its references replaced by values.

        Raises:
            SecretError: one has no value.
        """
        return SECRET.sub(lambda found: self.value(found[1]), text)

    # --- arguments

    def check(self, tool: str, arguments: JsonObject, schema: Json, field: str) -> tuple[list[Place], list[Violation]]:
        """Give the places of references in a call's arguments, and what is wrong with them.

        What looks like a reference and names no secret is plain text, unless its place takes secrets.
        """
        places: list[Place] = []
        violations: list[Violation] = []
        for path, name in _references(arguments):
            takes = takes_secret(schema, path)
            source = self._sources.get(name)
            if source is None:
                told = ("SECRET_UNKNOWN", f"there is no secret {name!r} in the server's settings") if takes else None
            elif not takes:
                told = "SECRET_NOT_TAKEN", "takes no secret: the tool's schema does not say format: password here"
            elif not any(fnmatch.fnmatchcase(tool, pattern) for pattern in source.tools):
                told = "SECRET_NOT_ALLOWED", f"the server's settings do not give the secret {name!r} to {tool}"
            else:
                told = None
                places.append(path)

            if told is not None:
                violations.append(Violation(place(field, path), told[1], told[0]))

        return places, violations

    async def call(
        self,
        invocation: Invocation,
        schema: Json,
        make: Callable[[Invocation], Awaitable[ToolResult]],
    ) -> ToolResult:
        """Make a call with the values in its arguments, and give what comes of it without them.

        Raises:
            ToolCallError: INVALID_ARGUMENTS for a reference that cannot be resolved, or what the call raised.
        """
        arguments = self._resolved(invocation, schema)
        # With values in them they are other arguments than those that were checked.
        checked = invocation.checked if arguments is invocation.arguments else ""
        given = dataclasses.replace(invocation, arguments=arguments, checked=checked)
        if self.none:
            return await make(given)

        # Also where no value is known yet: the provider may be the first to read one, for its own settings.
        progress = _Progress(self, invocation.report)
        try:
            result = await make(dataclasses.replace(given, report=progress.report))
        except ToolCallError as error:
            raise ToolCallError(self.without_in_failure(error.failure)) from None
        finally:
            progress.end()

        return dataclasses.replace(result, output=self.without_in_json(result.output))

    def _resolved(self, invocation: Invocation, schema: Json) -> JsonObject:
        places, violations = self.check(invocation.tool, invocation.arguments, schema, "arguments")
        arguments: Any = invocation.arguments
        for path in places:
            try:
                arguments = _with(arguments, path, self.expand(_at(arguments, path)))
            except SecretError as error:
                _log.error("%s", error)  # where a secret is, only the log tells
                told = "the secret has no value on this server; its log says why"
                violations.append(Violation(place("arguments", path), told, "SECRET_MISSING"))

        if violations:
            raise ToolCallError(invalid_arguments(violations))

        resolved: JsonObject = arguments
        return resolved

    # --- hiding

    def without(self, text: str, *, cut: bool = False) -> str:
        """Give a text without values. One that was ``cut`` may end in the beginning of one, which goes as well."""
        pattern = self._hidden.pattern
        if pattern is None:
            return text

        text = pattern.sub(HIDDEN, text)
        if cut:
            body = text.removesuffix("…")
            kept = len(body) - self._begun(body, LENGTH_MIN)
            return text if kept == len(body) else f"{body[:kept]}{HIDDEN}"

        return text

    def without_in_json(self, value: Json) -> Json:
        """Give a JSON value without secrets in its strings, keys and numbers."""
        if self._hidden.pattern is None:
            return value

        match value:
            case str():
                return self.without(value)
            case dict():
                return {self.without(key): self.without_in_json(inner) for key, inner in value.items()}
            case list():
                return [self.without_in_json(inner) for inner in value]
            case int() | float() if str(value) in self._hidden.written:
                return HIDDEN
            case _:
                return value

    def without_in_failure(self, failure: Failure) -> Failure:
        """Give a failure without secrets in its texts."""
        clean = self._without_cut
        return dataclasses.replace(
            failure,
            reason=clean(failure.reason),
            domain=clean(failure.domain),
            message=clean(failure.message),
            metadata={clean(key): clean(value) for key, value in failure.metadata.items()},
            violations=tuple(
                Violation(clean(fault.field), clean(fault.description), clean(fault.reason))
                for fault in failure.violations
            ),
        )

    def _without_cut(self, text: str) -> str:
        return self.without(text, cut=True)

    def split(self, text: str) -> tuple[str, str]:
        """Give a piece of a longer text without values, and apart from it the end that may be the beginning of one."""
        pattern = self._hidden.pattern
        text = pattern.sub(HIDDEN, text) if pattern else text
        kept = len(text) - self._begun(text, 1)
        return text[:kept], text[kept:]

    def _begun(self, text: str, least: int) -> int:
        """Give how many characters at the end of a text are the beginning of a value; at least ``least``, or 0."""
        longest = 0
        for form in self._hidden.written:
            head = form[:least]
            at = text.find(head, max(0, len(text) - len(form) + 1))
            while at != -1 and len(text) - at > longest:
                if form.startswith(text[at:]):
                    longest = len(text) - at

                at = text.find(head, at + 1)

        return longest


class _Progress:
    """Progress without secrets, also where one stands across two pieces of text."""

    def __init__(self, secrets: Secrets, deliver: Callable[[ToolProgress], None]) -> None:
        self._secrets = secrets
        self._deliver = deliver
        self._held = ""
        self._fraction = 0.0

    def report(self, progress: ToolProgress) -> None:
        text, self._held = self._secrets.split(self._held + progress.text)
        self._fraction = progress.fraction
        message = self._secrets.without(progress.message, cut=True)
        data = self._secrets.without_in_json(progress.data)
        self._deliver(ToolProgress(progress.fraction, message, data, text))

    def end(self) -> None:
        """Deliver what was held back: no more is to come that could make a secret of it."""
        held, self._held = self._secrets.without(self._held, cut=True), ""
        if held:
            self._deliver(ToolProgress(self._fraction, text=held))


def takes_secret(schema: Json, path: Place) -> bool:
    """Whether a JSON Schema says ``format: password`` of the place that ``path`` leads to, in any of its branches."""
    schemas = _closure(schema, [schema])
    for key in path:
        schemas = _closure(schema, [inner for outer in schemas for inner in _members(outer, key)])

    return any(found.get("format") == "password" for found in schemas)


def _closure(root: Json, schemas: Sequence[Json]) -> list[JsonObject]:
    """Give the schemas, and all that hold at the same place by reference or combination."""
    found: dict[int, JsonObject] = {}
    waiting = list(schemas)
    while waiting and len(found) < _SCHEMAS_MAX:
        schema = waiting.pop()
        if not isinstance(schema, dict) or id(schema) in found:
            continue

        found[id(schema)] = schema
        for keyword in ("allOf", "anyOf", "oneOf"):
            inner = schema.get(keyword)
            waiting += inner if isinstance(inner, list) else []

        waiting += [schema.get(keyword) for keyword in ("if", "then", "else")]
        if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
            waiting.append(_pointed(root, reference[1:]))

    return list(found.values())


def _members(schema: JsonObject, key: str | int) -> Iterator[Json]:
    if isinstance(key, int):
        first = schema.get("prefixItems")
        first = first if isinstance(first, list) else []
        yield first[key] if key < len(first) else schema.get("items")
        return

    properties = schema.get("properties")
    if isinstance(properties, dict) and key in properties:
        yield properties[key]
    else:
        yield schema.get("additionalProperties")


def _pointed(root: Json, pointer: str) -> Json:
    value = root
    for part in pointer.split("/")[1:]:
        if not isinstance(value, dict):
            return None

        value = value.get(part.replace("~1", "/").replace("~0", "~"))

    return value


def _references(value: Json, path: Place = ()) -> Iterator[tuple[Place, str]]:
    match value:
        case str() if found := SECRET.fullmatch(value):
            yield path, found[1]
        case dict():
            for key, inner in value.items():
                yield from _references(inner, (*path, key))
        case list():
            for index, inner in enumerate(value):
                yield from _references(inner, (*path, index))
        case _:
            pass


def _at(value: Any, path: Place) -> Any:
    for key in path:
        value = value[key]

    return value


def _with(value: Any, path: Place, leaf: str) -> Any:
    if not path:
        return leaf

    copy = value.copy()
    copy[path[0]] = _with(value[path[0]], path[1:], leaf)
    return copy


def _written(value: str) -> Iterator[str]:
    """Give the ways a value is commonly written: in URLs, in JSON, in Python, in Base64 whatever stands before it."""
    forms = {
        value,
        quote(value, safe=""),
        quote(value),
        quote_plus(value),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        " ".join(value.split()),
        *(line for line in value.splitlines() if len(line) >= _PIECE_MIN),
    }
    yield from (form for form in forms if len(form) >= LENGTH_MIN)
    yield from (re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in forms if "%" in form)
    raw = value.encode()
    for before in range(3):
        # The first and the last characters depend on what stands around the value.
        encoded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[before] : len(encoded) - ((before + len(raw)) % 3 != 0)]
        if len(inner) >= LENGTH_MIN:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")

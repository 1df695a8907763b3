"""Loading the settings from their sources, and telling them: the reference for people, the effective configuration.

Every fault is found at once and told with its source: the file and line, the variable, or the flag.
"""

from __future__ import annotations

import functools
import itertools
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ByteSize, ValidationError
from pydantic_core import PydanticUndefined

from autoglm._dataclasses import dataclass
from autoglm_server.settings import Section, Settings, format_bytes, format_duration

if TYPE_CHECKING:
    import yaml

# What only a file, a fault or the reference needs is imported there: most servers start without any of them.

PREFIX = "AUTOGLM_"
CLIENT_VARIABLES = frozenset({"AUTOGLM_ADDRESS", "AUTOGLM_CONFIG"})
"""Variables with our prefix that are not settings of the server."""
FILE_BYTES_MAX = 1 << 20
MASK = "********"
_WORD = r"""(?:'[^']*'|"[^"]*"|\\.|[^\s'"\\])*"""
_COMMAND = re.compile(rf"mcp:((?:\s*[A-Za-z_][A-Za-z0-9_]*={_WORD}(?=\s|$))+)")
_VALUE = re.compile(rf"(?<==)(?!\$|secret://){_WORD}(?=\s|$)")

_Path = tuple[str | int, ...]


class ConfigurationError(Exception):
    """The configuration is wrong; ``faults`` says every one, each with its source and the fix."""

    def __init__(self, faults: list[str]) -> None:
        """Carry all faults."""
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(slots=True)
class _Layers:
    """The merged values, and where each came from."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[_Path, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def put(self, path: _Path, value: Any, origin: str) -> None:
        """Set one value over what an earlier source said."""
        target = self.values

        for key in path[:-1]:
            inner = target.get(str(key))

            if not isinstance(inner, dict):
                inner = target[str(key)] = {}

            target = inner

        target[str(path[-1])] = value
        self.origins[path] = origin

    def origin(self, path: _Path) -> str:
        """Say where the value at ``path``, or the nearest one around it, came from."""
        for end in range(len(path), 0, -1):
            if found := self.origins.get(path[:end]):
                return found

        return next((origin for known, origin in self.origins.items() if known[: len(path)] == path), "configuration")


def load(
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[str, Any]] | None = None,
) -> Settings:
    """Load the settings. ``flags`` maps a dotted key to the flag's name and its value.

    Raises:
        ConfigurationError: with all faults of all sources.
    """
    layers = _Layers()

    if file is not None:
        _read_file(file, layers)

    _read_environment(environment or {}, layers)

    for key, (flag, value) in (flags or {}).items():
        section, _, name = key.partition(".")
        layers.put((section, name) if name else (section,), value, flag)

    try:
        settings = Settings.model_validate(layers.values)
    except ValidationError as error:
        raise ConfigurationError([*layers.faults, *_faults(error, layers)]) from None

    if layers.faults:
        raise ConfigurationError(layers.faults)

    return settings


# --- sources


def _read_file(file: Path, layers: _Layers) -> None:
    import yaml  # noqa: PLC0415 - see above

    try:
        text = _text(file)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        layers.faults.append(f"{file}: cannot be read: {error.strerror or error}; name another with --config")
    except ValueError as error:  # not UTF-8, or too large
        layers.faults.append(f"{file}: cannot be read: {error}")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        layers.faults.append(f"{where}: not YAML: {getattr(error, 'problem', None) or error}")
    else:
        if isinstance(node, yaml.MappingNode):
            _read_mapping(node, (), file, layers)
        elif node is not None:
            layers.faults.append(f"{file}:{node.start_mark.line + 1}: the file must be a mapping of sections")


def _text(file: Path) -> str:
    if file.stat().st_size > FILE_BYTES_MAX:
        raise ValueError(f"larger than {format_bytes(FILE_BYTES_MAX)}")

    return file.read_text(encoding="utf-8")


def _read_mapping(node: yaml.MappingNode, path: _Path, file: Path, layers: _Layers) -> None:
    import yaml  # noqa: PLC0415 - see above

    seen: set[str] = set()

    for key_node, value_node in node.value:
        where = f"{file}:{key_node.start_mark.line + 1}"

        if not isinstance(key_node, yaml.ScalarNode):
            layers.faults.append(f"{where}: a key must be the name of a setting, not a list or mapping")
            continue

        key = str(key_node.value)
        here = (*path, key)

        if key in seen:
            layers.faults.append(f"{where}: {_dotted(here)} is there twice")

        seen.add(key)
        layers.origins[here] = where

        if isinstance(value_node, yaml.MappingNode) and len(path) < 2:
            layers.put(here, {}, where) if not value_node.value else None
            _read_mapping(value_node, here, file, layers)
        else:
            try:
                layers.put(here, _plain(value_node), where)
            except ValueError as error:
                layers.faults.append(f"{where}: {_dotted(here)} cannot be read: {error}; put a text in quotes")


def _plain(node: yaml.Node) -> Any:
    """Give the value that a node stands for; raises ValueError if there is none: a foreign tag, 2026-13-45."""
    import yaml  # noqa: PLC0415 - see above

    loader = yaml.SafeLoader("")

    try:
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(getattr(error, "problem", None) or str(error)) from None
    finally:
        loader.dispose()


def _read_environment(environment: Mapping[str, str], layers: _Layers) -> None:
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in CLIENT_VARIABLES or not environment[variable]:
            continue

        path = tuple(part.lower() for part in variable.removeprefix(PREFIX).split("__", 1))
        try:
            layers.put(path, _environment_value(path, environment[variable]), variable)
        except ValueError as error:
            layers.faults.append(f"{variable}: not YAML: {error}")


def _environment_value(path: _Path, text: str) -> Any:
    """Read YAML where the setting is a list or mapping; else text, so that ``0123`` and ``no`` stay names."""
    if path not in {("plugins",), ("providers",), ("tools",), ("secrets",), ("openapi",)}:
        return text

    import yaml  # noqa: PLC0415 - see above

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(getattr(error, "problem", None) or str(error)) from None


# --- faults


def _faults(error: ValidationError, layers: _Layers) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_context=True):
        path: _Path = detail["loc"]
        origin, key = layers.origin(path), _dotted(path)

        if detail["type"] == "extra_forbidden":
            yield f"{origin}: {key} is not a setting{_nearest(path)}"
        elif not path:
            yield f"{_message(detail)}"
        elif detail["type"] == "missing":
            yield f"{origin}: {key} is missing"
        else:
            shown = MASK if _is_private(path) else _shown(detail["input"])
            yield f"{origin}: {key} = {shown}: {_message(detail)}"


def _is_private(path: _Path) -> bool:
    """Whether somebody may have written a secret there, rather than where it is."""
    return path[0] == "secrets" or not {"auth", "headers"}.isdisjoint(path)


def _message(detail: Any) -> str:
    if detail["type"] in {"tuple_type", "list_type"}:
        return "write a list, as in [a, b]"

    if detail["type"] in {"dict_type", "model_type"}:
        return "write a mapping, as in {key: value}"

    return str(detail["msg"]).removeprefix("Value error, ").rstrip(".")


def _shown(value: object) -> str:
    text = repr(mask_uri(value) if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _nearest(path: _Path) -> str:
    """Say which known key is meant, in the same section or, if it stands in the wrong one, in another."""
    import difflib  # noqa: PLC0415 - see above

    if len(path) == 3 and (of := _section_of_each(Settings.model_fields[str(path[0])].annotation)) is not None:
        keys = [*of.model_fields]
        near = difflib.get_close_matches(str(path[-1]), keys, 1, 0.5)
        return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(keys)}"

    known = {_dotted(key): key for key, _, _ in fields()} | {name: (name,) for name in Settings.model_fields}
    wanted = _dotted(path)
    section = wanted.rpartition(".")[0]
    siblings = [key for key in known if key.rpartition(".")[0] == section]
    found = [key for key in known if key.rpartition(".")[2] == wanted.rpartition(".")[2]][:1]
    found = found or difflib.get_close_matches(wanted, siblings, 1, 0.5)
    found = found or difflib.get_close_matches(wanted, list(known), 1, 0.5)

    if found:
        return f"; did you mean {found[0]} ({variable_of(known[found[0]])})?"

    return f"; in {section or 'the configuration'} there are: {', '.join(siblings) or 'none'}"


def _dotted(path: _Path) -> str:
    return ".".join(map(str, path))


# --- telling


def variable_of(path: _Path) -> str:
    """Name the environment variable of a setting."""
    return PREFIX + "__".join(str(part).upper() for part in path)


def fields() -> Iterator[tuple[tuple[str, ...], Any, type[Section]]]:
    """Give every setting: its path, what pydantic knows of it, and its section."""
    for name, info in Settings.model_fields.items():
        section = info.annotation

        if isinstance(section, type) and issubclass(section, Section):
            for key, inner in section.model_fields.items():
                yield (name, key), inner, section
        else:
            yield (name,), info, Settings


def mask_uri(text: str) -> str:
    """Leave out the password, and the values of the query, of what looks like a URI; of a command's, its variables'."""
    if found := _COMMAND.match(text):
        return f"mcp:{_VALUE.sub(MASK, found[1])}{text[found.end() :]}"

    if "://" not in text:
        return text

    try:
        parts = urlsplit(text)
    except ValueError:
        return MASK

    user, at, host = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}:{MASK}@{host}" if at and ":" in user else parts.netloc
    query = "&".join(f"{pair.partition('=')[0]}={MASK}" for pair in parts.query.split("&")) if parts.query else ""
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment)) if (at or query) else text


def render_effective(settings: Settings) -> str:
    """Give the settings that hold, as YAML, with secrets masked."""
    import yaml  # noqa: PLC0415 - see above

    return yaml.safe_dump(_shown_tree(settings), sort_keys=False, allow_unicode=True)


def _shown_tree(value: Any) -> Any:
    if isinstance(value, BaseModel):
        plain = value.model_dump(mode="json")
        return {
            name: _shown_tree(getattr(value, name))
            if isinstance(getattr(value, name), BaseModel | tuple | dict)
            else _shown_tree(plain[name])
            for name in type(value).model_fields
        }

    if isinstance(value, dict):
        return {key: _shown_tree(inner) for key, inner in value.items()}

    if isinstance(value, tuple | list):
        return [_shown_tree(inner) for inner in value]

    return mask_uri(value) if isinstance(value, str) else value


def render_reference() -> str:
    """Give the reference of all settings, as Markdown."""
    lines = [
        "# Configuration",
        "",
        "<!-- Written by `python -m autoglm_server.configuration`; change the docstrings in settings.py. -->",
        "",
        "Defaults < YAML file (`--config`) < environment < flags. An unknown key is an error that names the nearest known.",
        "Durations are a number and a unit (`500ms`, `30s`, `10m`, `2h`, `7d`), sizes likewise (`64KiB`, `1MiB`).",
    ]
    top = [entry for entry in fields() if entry[2] is Settings]
    lines += _table("Top level", "", top)

    for name, info in Settings.model_fields.items():
        section = info.annotation

        if isinstance(section, type) and issubclass(section, Section):
            lines += _table(f"`{name}`", section.__doc__ or "", [entry for entry in fields() if entry[0][0] == name])
        elif (of := _section_of_each(section)) is not None:
            entries: list[tuple[tuple[str, ...], Any, type[Section]]] = [
                ((f"{name}[]", key), inner, of) for key, inner in of.model_fields.items()
            ]
            lines += _table(f"Each of `{name}`", of.__doc__ or "", entries)

    return "\n".join(lines) + "\n"


def _section_of_each(annotation: Any) -> type[Section] | None:
    """Give the section that each value of a list or mapping is."""
    inner = typing.get_args(annotation)
    of = inner[0 if typing.get_origin(annotation) is tuple else -1] if inner else None
    return of if isinstance(of, type) and issubclass(of, Section) else None


def _table(title: str, text: str, entries: list[tuple[tuple[str, ...], Any, type[Section]]]) -> list[str]:
    import inspect  # noqa: PLC0415 - see above

    lines = ["", f"## {title}", ""]
    lines += [inspect.cleandoc(text), ""] if text else []
    lines += ["| key | default | environment | meaning |", "| --- | --- | --- | --- |"]

    for path, info, section in entries:
        meaning = documented(section, path[-1])
        bounds = _bounds(info.metadata)
        default = "the platform's user data folder" if path == ("data_dir",) else f"`{_default(info)}`"
        variable = "" if path[0].endswith("[]") else f"`{variable_of(path)}`"
        lines.append(f"| `{_dotted(path)}` | {default} | {variable} | {meaning}{_choices(info)}{bounds} |")

    return lines


def documented(section: type[Section], name: str) -> str:
    """Give the docstring of a field, from the source of the section or of the one it is built on."""
    return next((texts[name] for cls in section.__mro__ if name in (texts := _docstrings(cls))), "")


@functools.cache
def _docstrings(cls: type) -> Mapping[str, str]:
    """Give the docstrings of a class's own fields."""
    import ast  # noqa: PLC0415 - see above
    import inspect  # noqa: PLC0415 - see above
    import textwrap  # noqa: PLC0415 - see above

    if not inspect.get_annotations(cls) or not issubclass(cls, Section):
        return {}

    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, after in itertools.pairwise(body.body):
        match statement, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
            case _:
                pass

    return found


def _default(info: Any) -> str:
    value = info.get_default(call_default_factory=True)

    if value is PydanticUndefined:
        return "(required)"

    if value is None or value in ("", (), {}):
        return "(empty)"

    if isinstance(value, tuple):
        return ", ".join(map(str, value))

    if isinstance(value, ByteSize):
        return format_bytes(value)

    if isinstance(value, timedelta):
        return format_duration(value)

    return str(value).lower() if isinstance(value, bool) else str(value)


def _choices(info: Any) -> str:
    choices = typing.get_args(info.annotation) if typing.get_origin(info.annotation) is typing.Literal else ()
    return f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""


def _bounds(metadata: list[Any]) -> str:
    told = []

    for words, name in (("at least", "ge"), ("above", "gt"), ("at most", "le")):
        found = [value for bound in metadata if (value := getattr(bound, name, None)) is not None]
        told += [f"{words} {format_duration(value) if isinstance(value, timedelta) else value}" for value in found]

    return f" ({', '.join(told)})" if told else ""


if __name__ == "__main__":
    print(render_reference(), end="")  # noqa: T201 - what this command is for

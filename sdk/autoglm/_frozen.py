"""Frozen dataclasses that are made as quickly as others.

What :mod:`dataclasses` writes for a frozen class sets each field through ``object.__setattr__``, which looks the field up and
asks first whether it may be set in this way: four times the work of setting it. The classes of the vocabulary are made for
every event, by servers and clients, so their ``__init__`` is written anew: it sets the fields while the new instance is still
of a class that is the same but for the refusal, and then makes it what it is to be.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any


def quicken(classes: Iterable[type]) -> None:
    """Give dataclasses an ``__init__`` that sets their fields as that of any other class does.

    They are frozen and have slots, and no base but ``object``. It takes the same arguments, and has the same signature.
    """
    names: dict[str, Any] = {"set_class": object.__dict__["__class__"].__set__}
    source: list[str] = []
    quick = list(classes)
    for number, cls in enumerate(quick):
        source += _init(cls, number, names)

    exec(compile("\n".join(source), "<autoglm dataclasses>", "exec"), names)  # noqa: S102 - of our own fields, as dataclasses does it
    for number, cls in enumerate(quick):
        _replace(cls, names[f"init_{number}"])


def _init(cls: type, number: int, names: dict[str, Any]) -> list[str]:
    """Write the lines of a class's ``__init__``; what they name goes into ``names``."""
    parts = fields(cls)
    names[f"class_{number}"] = cls
    names[f"open_{number}"] = type(cls.__name__, (), {"__slots__": tuple(part.name for part in parts)})
    lines = [
        f"def init_{number}(self, {', '.join(part.name for part in parts)}):",
        f"    set_class(self, open_{number})",
    ]
    for part in parts:
        value = part.name
        if part.default_factory is not MISSING:
            names[f"make_{number}_{value}"] = part.default_factory
            names[f"none_{number}_{value}"] = _default(cls, value)
            value = f"make_{number}_{value}() if {value} is none_{number}_{value} else {value}"

        lines.append(f"    self.{part.name} = {value}")

    return [*lines, f"    self.__class__ = class_{number}"]


def _default(cls: type, name: str) -> object:
    """Give what the ``__init__`` of dataclasses has as the default where one is to be made."""
    init: types.FunctionType = cls.__init__  # type: ignore[misc]
    code, defaults = init.__code__, init.__defaults__ or ()
    arguments = code.co_varnames[: code.co_argcount]
    return defaults[arguments.index(name) - len(arguments)]


def _replace(cls: type, init: types.FunctionType) -> None:
    before: types.FunctionType = cls.__init__  # type: ignore[misc]
    init.__defaults__ = before.__defaults__
    init.__annotations__ = before.__annotations__
    init.__name__, init.__qualname__, init.__module__ = before.__name__, before.__qualname__, before.__module__
    cls.__init__ = init  # type: ignore[misc]

"""Dataclasses that cost little to define, and, where they are frozen, as little to make as others.

What :mod:`dataclasses` writes for a class is five or six functions, each compiled by itself: most of the time that it takes to
import two hundred classes, of which a process uses few. Here the methods that need no text of their own are closures, and the
``__init__`` is written when the class is first called.

And for a frozen class it writes an ``__init__`` that sets each field through ``object.__setattr__``, which looks the field up
and asks first whether it may be set in this way: four times the work of setting it. The one written here sets the fields while
the new instance is still of a class that is the same but for the refusal, and then makes it what it is to be. An instance of a
subclass that has more in it cannot be of that class meanwhile, and is filled in the slow way.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: Any = None, /, **options: bool) -> Any:
        """Make a dataclass, as :func:`dataclasses.dataclass` does: same options, same behaviour."""
        if cls is None:
            return lambda cls: dataclass(cls, **options)

        quick = options.get("slots") and options.keys() <= _QUICK and cls.__bases__ == (object,) and cls.__doc__
        if quick and not hasattr(cls, "__post_init__"):
            return _made(cls, **options)

        return dataclasses.dataclass(cls, **options)


__all__ = ["dataclass", "maker", "open_class"]

T = TypeVar("T")
P = ParamSpec("P")

_QUICK = {"slots", "frozen", "eq", "kw_only"}
"""The options that are known here; with others, :mod:`dataclasses` does all of it."""

_set_class: Callable[[object, type], None] = object.__dict__["__class__"].__set__
_set: Callable[[object, str, object], None] = object.__setattr__


def _made(own: type, *, frozen: bool = False, eq: bool = True, **options: bool) -> type:
    said = set(vars(own))
    cls: Any = dataclasses.dataclass(init=False, repr=False, eq=False, **options)(own)
    parameters = cls.__dataclass_params__
    parameters.init, parameters.repr, parameters.eq, parameters.frozen = True, True, eq, frozen
    fields = dataclasses.fields(cls)
    methods = [_repr_of(tuple(each.name for each in fields if each.repr))]

    if eq:
        methods += _comparing(fields, hashed=frozen)

    if frozen:
        methods += _refusing(cls, frozenset(each.name for each in fields))

    for method in methods:
        if method.__name__ not in said:
            method.__qualname__, method.__module__ = f"{cls.__qualname__}.{method.__name__}", cls.__module__
            setattr(cls, method.__name__, method)

    if eq and not frozen and "__hash__" not in said:
        cls.__hash__ = None

    if "__init__" not in said:
        cls.__init__ = _Init(cls, fields, frozen=frozen)

    return cls  # type: ignore[no-any-return]


# --- the methods that need no text of their own


def _repr_of(names: tuple[str, ...]) -> Callable[..., Any]:
    def __repr__(self: object) -> str:  # noqa: N807 - it becomes a method
        told = ", ".join([f"{name}={getattr(self, name)!r}" for name in names])
        return f"{self.__class__.__qualname__}({told})"

    return recursive_repr("...")(__repr__)


def _comparing(fields: tuple[dataclasses.Field[Any], ...], *, hashed: bool) -> list[Callable[..., Any]]:
    values = _getter([each.name for each in fields if each.compare])
    hashing = _getter([each.name for each in fields if (each.compare if each.hash is None else each.hash)])

    def __eq__(self: object, other: object) -> bool:  # noqa: N807 - it becomes a method
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: object) -> int:  # noqa: N807 - it becomes a method
        return hash(hashing(self))

    return [__eq__, __hash__] if hashed else [__eq__]


def _getter(names: list[str]) -> Callable[[object], object]:
    """Give what reads the fields as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)

    return (lambda instance: (getattr(instance, names[0]),)) if names else lambda _: ()


def _refusing(cls: Any, names: frozenset[str]) -> list[Callable[..., Any]]:
    def __setattr__(self: object, name: str, value: object) -> None:  # noqa: N807 - it becomes a method
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

        super(cls, self).__setattr__(name, value)

    def __delattr__(self: object, name: str) -> None:  # noqa: N807 - it becomes a method
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

        super(cls, self).__delattr__(name)

    def __getstate__(self: Any) -> list[object]:  # noqa: N807 - it becomes a method
        return [getattr(self, each.name) for each in dataclasses.fields(self)]

    def __setstate__(self: Any, state: list[object]) -> None:  # noqa: N807 - it becomes a method
        for each, value in zip(dataclasses.fields(self), state, strict=True):
            _set(self, each.name, value)

    return [__setattr__, __delattr__, __getstate__, __setstate__]


# --- the one that does


class _Made:
    """Stands for a default that is made anew for each instance."""

    def __repr__(self) -> str:
        return "<factory>"


_MADE = _Made()
_WRITTEN = "<autoglm dataclasses>"


class _Init:
    """Stands for the ``__init__`` of a class until it is first asked for, and then puts it in its own place."""

    __slots__ = ("_cls", "_fields", "_frozen")

    def __init__(self, cls: type, fields: tuple[dataclasses.Field[Any], ...], *, frozen: bool) -> None:
        self._cls = cls
        self._fields = fields
        self._frozen = frozen

    def __get__(self, instance: object, owner: type) -> Any:
        init: Any = _init(self._cls, self._fields, frozen=self._frozen)

        if isinstance(vars(self._cls).get("__init__"), _Init):  # else another thread was here meanwhile
            self._cls.__init__ = init  # type: ignore[misc]

        return init if instance is None else init.__get__(instance, owner)


def maker(cls: Callable[P, T]) -> Callable[P, T]:
    """Give what makes instances of a frozen class as calling it does, in half the time: for who makes thousands a second.

    An instance is filled before it is of the class at all, and then changes its class once. A class that is not one of those
    made here makes its own.
    """
    own: Any = cls
    opened = open_class(own)
    if opened is cls:
        return cls

    fields = dataclasses.fields(own)
    names = {"new_": object.__new__, "open_": opened, "own_": own}
    lines = ["self = new_(open_)", *_assignments(fields, names), "self.__class__ = own_", "return self"]
    made: Callable[P, T] = _function(own, fields, "make", names, lines)
    return made


def open_class(cls: type) -> type:
    """Give a class that is the same as a frozen one but for the refusal: its instances are filled, and then change their class.

    A class that is not frozen, or not one of those made here, is its own.
    """
    init = vars(cls).get("__init__")
    quick = isinstance(init, _Init) or getattr(getattr(init, "__code__", None), "co_filename", "") == _WRITTEN
    if not quick or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return cls

    return _open(cls, dataclasses.fields(cls))


def _init(cls: type, fields: tuple[dataclasses.Field[Any], ...], *, frozen: bool) -> Callable[..., None]:
    """Write the ``__init__`` of a class, with the arguments that :mod:`dataclasses` gives it."""
    names: dict[str, Any] = {}
    lines = _assignments(fields, names)
    if frozen:
        names |= {"open_": _open(cls, fields), "fill_": _filling(fields), "set_class_": _set_class, "type_": type}
        first = "own_ = type_(self)", "try: set_class_(self, open_)", "except TypeError: return fill_(self, locals())"
        lines = [*first, *lines, "self.__class__ = own_"]

    init = _function(cls, fields, "__init__", names, lines, "self")
    init.__annotations__ = {each.name: each.type for each in fields if each.init} | {"return": None}
    init.__qualname__, init.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    return init  # type: ignore[no-any-return]


def _open(cls: type, fields: tuple[dataclasses.Field[Any], ...]) -> type:
    return type(cls.__name__, (), {"__slots__": tuple(each.name for each in fields)})


def _assignments(fields: tuple[dataclasses.Field[Any], ...], names: dict[str, Any]) -> list[str]:
    """Write the lines that set the fields of ``self``; adds to ``names`` what they and the arguments need."""
    names["made_"] = _MADE
    names |= {f"default_{each.name}": each.default for each in fields if each.default is not dataclasses.MISSING}
    lines = []
    for each in fields:
        if each.default_factory is not dataclasses.MISSING:
            names[f"make_{each.name}"] = each.default_factory
            made = f"make_{each.name}()"
            value = f"{made} if {each.name} is made_ else {each.name}" if each.init else made
        elif each.init:
            value = each.name
        elif each.default is not dataclasses.MISSING:
            value = f"default_{each.name}"
        else:
            continue

        lines.append(f"self.{each.name} = {value}")

    return lines


def _function(
    cls: type,
    fields: tuple[dataclasses.Field[Any], ...],
    name: str,
    names: dict[str, Any],
    lines: list[str],
    *first: str,
) -> Any:
    """Compile a function that has the fields as arguments."""
    arguments = [*first, *[_argument(each) for each in fields if each.init and not each.kw_only]]
    named = [_argument(each) for each in fields if each.init and each.kw_only]
    arguments += ["*", *named] if named else []
    text = (
        f"def write_({', '.join(names)}):\n"
        f" def {name}({', '.join(arguments)}):\n  " + "\n  ".join(lines or ["pass"]) + f"\n return {name}\n"
    )
    found: dict[str, Any] = {}
    exec(compile(text, _WRITTEN, "exec"), vars(sys.modules[cls.__module__]), found)  # noqa: S102 - of our own fields, as dataclasses does it
    return found["write_"](**names)


def _filling(fields: tuple[dataclasses.Field[Any], ...]) -> Callable[[object, dict[str, Any]], None]:
    """Give what sets the fields of a frozen instance, of any class, to what its ``__init__`` was given."""

    def fill(instance: object, given: dict[str, Any]) -> None:
        for each in fields:
            value = given[each.name] if each.init else each.default
            if value is _MADE or (not each.init and each.default_factory is not dataclasses.MISSING):
                value = each.default_factory()  # type: ignore[operator]  # there is one

            if value is not dataclasses.MISSING:
                _set(instance, each.name, value)

    return fill


def _argument(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"{field.name}=default_{field.name}"

    return f"{field.name}=made_" if field.default_factory is not dataclasses.MISSING else field.name

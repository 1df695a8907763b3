"""Finding functions: modules by name or by file, in the server and in its worker processes alike."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from autoglm.tool import FunctionTool

_TEXT = "__autoglm_text__"
"""The attribute of a module that was loaded from a file: the digest of its text."""


class LoadError(ValueError):
    """A module or a function cannot be found or loaded; the message says why and what to do."""


def load_module(name: str) -> ModuleType:
    """Import a module by its dotted name.

    Raises:
        LoadError: there is no such module, or it raised while it was loaded.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise LoadError(f"there is no module {name!r}; for a file, write its path, ending in .py") from None

        raise LoadError(f"the module {name!r} could not be loaded: {error}") from error
    except Exception as error:
        raise LoadError(f"the module {name!r} could not be loaded: {type(error).__name__}: {error}") from error


def load_file(path: Path, *, fresh: bool = False) -> ModuleType:
    """Load a Python file as a module, once for each path; its folder is not added to the import path.

    ``fresh``: load it anew if its text is another one than when it was loaded; what was loaded stays if that fails.

    Raises:
        LoadError: it is not there, or raised while it was loaded.
    """
    path = path.resolve()
    if not path.is_file():
        raise LoadError(f"there is no file {path}")

    name = _module_name(path)
    loaded = sys.modules.get(name)
    if loaded is not None and not (fresh and is_changed(path)):
        return loaded

    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path} is not a Python file; its name must end in .py")

    module = importlib.util.module_from_spec(spec)
    setattr(module, _TEXT, _digest(path))
    sys.modules[name] = module
    try:
        # Not by the spec's own loader: the bytecode it keeps is told apart by size and seconds, too coarse for an edit.
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))  # noqa: S102  # the file that was asked for
    except Exception as error:
        if loaded is None:
            del sys.modules[name]
        else:
            sys.modules[name] = loaded

        raise LoadError(f"{path} could not be loaded: {type(error).__name__}: {error}") from error

    return module


def is_changed(path: Path) -> bool:
    """Whether a file that was loaded has another text by now, or is gone."""
    path = path.expanduser().resolve()
    loaded = sys.modules.get(_module_name(path))
    return loaded is not None and getattr(loaded, _TEXT, "") != (_digest(path) if path.is_file() else "")


def _module_name(path: Path) -> str:
    return f"autoglm_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tools_of(module: ModuleType) -> list[FunctionTool]:
    """Give the tools that stand in a module, each once, in the order of their names' first appearance."""
    found: dict[int, FunctionTool] = {}
    for value in vars(module).values():
        if isinstance(value, FunctionTool):
            found.setdefault(id(value), value)

    return list(found.values())


class EditedError(LoadError):
    """A file has another text than the one that the server loaded."""


def address_of(tool: FunctionTool) -> tuple[str, str, str, str]:
    """Give where another process finds a tool: the module's name, its file, the tool's name in it, and the file's text.

    The text is told by its digest; it is empty for a module that is imported by name.

    Raises:
        LoadError: the name leads to something else, so another process would not find it.
    """
    module_name, name = tool.function.__module__, tool.function.__qualname__
    module = sys.modules.get(module_name)
    if module is None or getattr(module, name, None) is not tool:
        raise LoadError(
            f"tool {tool.spec.name}: run='process' needs the tool at module level under its function's name, "
            f"and {module_name}.{name} is something else; use @autoglm.tool as a decorator there",
        )

    return module_name, getattr(module, "__file__", None) or "", name, getattr(module, _TEXT, "")


def find_tool(module_name: str, file: str, name: str, text: str = "") -> FunctionTool:
    """Give the tool at an address.

    Raises:
        EditedError: its file has another text by now, so it may be another function.
        LoadError: it is not there.
    """
    by_file = module_name == "__main__" or module_name.startswith("autoglm_file_")
    module = load_file(Path(file)) if by_file else load_module(module_name)
    if text and getattr(module, _TEXT, text) != text:
        raise EditedError(f"{file} was edited after the server had read it; SIGHUP makes the server read it again")

    found = getattr(module, name, None)
    if not isinstance(found, FunctionTool):
        raise LoadError(f"{module_name}.{name} is no tool in a fresh process; define it whenever the module is loaded")

    return found

"""The planner that needs no model: it reads requests by the phrases that tools declare."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoglm_server.planner.rules.planner import RulesPlanner

if TYPE_CHECKING:
    from autoglm_server.planner.rules.examples import example_request
    from autoglm_server.planner.rules.phrasebook import check_phrases

__all__ = ["RulesPlanner", "check_phrases", "example_request"]

_LATER = {"check_phrases": "phrasebook", "example_request": "examples"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)

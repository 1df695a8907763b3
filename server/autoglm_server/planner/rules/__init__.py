"""The planner that needs no model: it reads requests by the phrases that tools declare."""

from __future__ import annotations

from autoglm_server.planner.rules.examples import example_request
from autoglm_server.planner.rules.phrasebook import check_phrases
from autoglm_server.planner.rules.planner import RulesPlanner

__all__ = ["RulesPlanner", "check_phrases", "example_request"]

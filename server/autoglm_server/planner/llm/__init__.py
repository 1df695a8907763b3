"""The model planner: plans with a language model, streaming. Needs the extra ``llm`` when it is used, not before."""

from __future__ import annotations

from autoglm_server.planner.llm.options import LlmOptions
from autoglm_server.planner.llm.planner import LlmPlanner

__all__ = ["LlmOptions", "LlmPlanner"]

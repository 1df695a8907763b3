"""Makes the planners that the settings ask for; a part of the composition root."""

from __future__ import annotations

from collections.abc import Mapping

from autoglm_server.planner.llm.models import EXTRA_LINE, Profile, check_base_url, parse_model
from autoglm_server.planner.llm.options import LlmOptions
from autoglm_server.planner.llm.planner import LlmPlanner, installed
from autoglm_server.planner.planner import Planner
from autoglm_server.planner.rules import RulesPlanner
from autoglm_server.settings import PlannerSettings


def make_planners(
    settings: PlannerSettings,
    environment: Mapping[str, str] | None = None,
    *,
    plugins: Mapping[str, Planner] | None = None,
) -> dict[str, Planner]:
    """Make every planner there is: `rules`, `llm` where its extra is installed, and those that ``plugins`` gave.

    A server whose plans use rules imports nothing of a model until a plan asks for one.

    Raises:
        ValueError: the planner that is configured is not there or cannot be used; the message says what to set.
    """
    planners: dict[str, Planner] = {**(plugins or {}), "rules": RulesPlanner()}
    llm = LlmPlanner(_options(settings), environment)

    if settings.model:
        parse_model(settings.model)

    if settings.base_url:
        check_base_url(settings.base_url)

    if installed():
        planners["llm"] = llm
    elif settings.kind == "llm":
        raise ValueError(f"planner.kind llm needs packages that are not installed: {EXTRA_LINE}")

    if settings.kind not in planners:
        known = ", ".join(sorted(planners))
        raise ValueError(f"planner.kind {settings.kind!r} is not there; this server has: {known}")

    if settings.kind == "llm":
        llm.describe()

    return planners


def _options(settings: PlannerSettings) -> LlmOptions:
    return LlmOptions(
        model=settings.model,
        models=settings.models,
        base_url=settings.base_url,
        key_variable=settings.api_key_env,
        key_file=settings.api_key_file,
        profile=None if settings.profile == "auto" else Profile(settings.profile),
        temperature=settings.temperature,
        max_output_tokens=settings.max_output_tokens,
        max_prompt_tokens=settings.max_prompt_tokens,
        output_chars=settings.output_chars,
        stall_timeout=settings.stall_timeout,
        debug_file=settings.debug_file,
    )

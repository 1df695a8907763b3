"""Makes the planners that the settings ask for; a part of the composition root."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from autoglm.model import JsonObject
from autoglm_server.configuration import ConfigurationError, load
from autoglm_server.planner.llm.models import EXAMPLES, EXTRA_LINE, Profile, check_base_url, found_in, parse_model
from autoglm_server.planner.llm.options import LlmOptions
from autoglm_server.planner.llm.planner import LlmPlanner, installed
from autoglm_server.planner.llm.writing import Writer
from autoglm_server.planner.planner import Planner
from autoglm_server.planner.rules import RulesPlanner
from autoglm_server.settings import PlannerSettings

_log = logging.getLogger(__name__)


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


def make_writer(settings: PlannerSettings, environment: Mapping[str, str] | None = None) -> Writer | None:
    """Make what writes text with the configured model; None where none is configured, installed and to be reached."""
    if not settings.model or not installed():
        return None

    options = _options(settings)
    writer = Writer(options, LlmPlanner(options, environment))
    if why := writer.check():
        _log.warning("llm.generate is not offered: %s", why)
        return None

    return writer


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


def report(environment: Mapping[str, str]) -> JsonObject:
    """Say which planner a server with this environment would use, and which models it has a key for; never a key.

    ``python -m autoglm_server.planners`` prints it, for ``autoglm doctor``.
    """
    said: JsonObject = {
        "installed": installed(),
        "extra": EXTRA_LINE,
        "found": [
            {"provider": provider, "variable": variable, "model": f"{provider}:{EXAMPLES.get(provider, 'NAME')}"}
            for provider, variable in found_in(environment)
        ],
    }
    file = environment.get("AUTOGLM_CONFIG", "")

    try:
        settings = load(file=Path(file) if file else None, environment=environment).planner
        said["kind"] = settings.kind
        planner = make_planners(settings, environment)[settings.kind]
    except ConfigurationError as error:
        said["problem"] = error.faults[0]
    except ValueError as error:
        said["problem"] = str(error)
    else:
        said["model"] = planner.describe() if isinstance(planner, LlmPlanner) else ""
        said["address"] = planner.address() if isinstance(planner, LlmPlanner) else ""

    return said


if __name__ == "__main__":
    sys.stdout.write(json.dumps(report(os.environ)) + "\n")

"""What the model planner is told by the settings."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from autoglm._dataclasses import dataclass
from autoglm_server.planner.llm.models import Profile


@dataclass(frozen=True, slots=True)
class LlmOptions:
    """How models are chosen and asked. ``base_url``, ``key_variable`` and ``key_file`` are of the provider of ``model``."""

    model: str = ""
    models: tuple[str, ...] = ()
    """Globs of the models that a plan may name; empty: every model of every provider that has its key here."""
    base_url: str = ""
    key_variable: str = ""
    key_file: Path | None = None
    profile: Profile | None = None
    """How a model is asked; None: as suits its provider."""
    temperature: float | None = None
    max_output_tokens: int = 8192
    max_prompt_tokens: int = 24_000
    output_chars: int = 4000
    stall_timeout: timedelta = timedelta(seconds=60)
    debug_file: Path | None = None

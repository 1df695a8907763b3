"""Which model is meant, where it is, which key it takes, and how it is asked for a plan.

A model is named ``provider:name``; a server that speaks the OpenAI protocol also ``openai-compatible:NAME@BASE_URL``. Keys
come from the environment or from a file, are read when a round begins, and are never part of a message.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from autoglm._dataclasses import dataclass

KEY_BYTES_MAX: Final = 8 << 10
NAME_CHARS_MAX: Final = 256
EXTRA_LINE: Final = "pip install 'open-autoglm[server,llm]'"
"""What installs what a model needs."""


class Profile(enum.StrEnum):
    """How a model is asked for a plan."""

    JSON_SCHEMA = "json_schema"
    """Structured output by a JSON Schema; the server lets nothing else through."""
    TOOL = "tool"
    """A call of one function whose parameters are the plan."""
    TEXT = "text"
    """Plain text with a fenced block of JSON; any model can do that."""


class Wire(enum.Enum):
    """Which protocol a provider speaks, and with which peculiarities."""

    OPENAI = enum.auto()
    ANTHROPIC = enum.auto()
    GOOGLE = enum.auto()
    GLM = enum.auto()
    DEEPSEEK = enum.auto()
    QWEN = enum.auto()
    OLLAMA = enum.auto()
    VLLM = enum.auto()
    COMPATIBLE = enum.auto()


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """A provider of models. ``keys`` are the variables a key is looked for in, with the address each is for."""

    wire: Wire
    profile: Profile
    keys: Mapping[str, str]
    base_url: str = ""
    needs_key: bool = True
    base_url_variable: str = ""


def _spec(wire: Wire, profile: Profile, base_url: str, *keys: str) -> ProviderSpec:
    return ProviderSpec(wire, profile, MappingProxyType(dict.fromkeys(keys, base_url)), base_url)


def _server(wire: Wire, base_url: str, key: str, base_url_variable: str = "") -> ProviderSpec:
    keys = MappingProxyType({key: base_url})
    return ProviderSpec(wire, Profile.JSON_SCHEMA, keys, base_url, False, base_url_variable)  # noqa: FBT003


PROVIDERS: Final[Mapping[str, ProviderSpec]] = MappingProxyType(
    {
        "openai": _spec(Wire.OPENAI, Profile.JSON_SCHEMA, "https://api.openai.com/v1", "OPENAI_API_KEY"),
        # Its functions' arguments can be streamed as they are written; its structured output takes no free-form objects.
        "anthropic": _spec(Wire.ANTHROPIC, Profile.TOOL, "https://api.anthropic.com", "ANTHROPIC_API_KEY"),
        # It streams text as it is written, but a function's arguments in one piece.
        "google": _spec(
            Wire.GOOGLE, Profile.TEXT, "https://generativelanguage.googleapis.com", "GOOGLE_API_KEY", "GEMINI_API_KEY"
        ),
        "glm": ProviderSpec(
            Wire.GLM,
            Profile.TOOL,
            MappingProxyType(
                {
                    "ZAI_API_KEY": "https://api.z.ai/api/paas/v4",
                    "ZHIPUAI_API_KEY": "https://open.bigmodel.cn/api/paas/v4",
                    "BIGMODEL_API_KEY": "https://open.bigmodel.cn/api/paas/v4",
                }
            ),
            "https://api.z.ai/api/paas/v4",
        ),
        "deepseek": _spec(Wire.DEEPSEEK, Profile.TOOL, "https://api.deepseek.com", "DEEPSEEK_API_KEY"),
        "qwen": _spec(
            Wire.QWEN,
            Profile.TOOL,
            "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
            "DASHSCOPE_API_KEY",
            "ALIBABA_API_KEY",
        ),
        "ollama": _server(Wire.OLLAMA, "http://localhost:11434/v1", "OLLAMA_API_KEY", "OLLAMA_BASE_URL"),
        "vllm": _server(Wire.VLLM, "http://localhost:8000/v1", "VLLM_API_KEY", "VLLM_BASE_URL"),
        "llamacpp": _server(Wire.COMPATIBLE, "http://localhost:8080/v1", "LLAMACPP_API_KEY"),
        "lmstudio": _server(Wire.COMPATIBLE, "http://localhost:1234/v1", "LMSTUDIO_API_KEY"),
        "openai-compatible": _server(Wire.COMPATIBLE, "", "OPENAI_COMPATIBLE_API_KEY"),
    }
)
"""Every provider there is."""


EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "openai": "gpt-5-mini",
        "anthropic": "claude-haiku-4-5",
        "google": "gemini-3-flash",
        "glm": "glm-4.7",
        "deepseek": "deepseek-flash",
        "qwen": "qwen3-max",
    }
)
"""A model of each provider that a key is enough for, to be shown to who has only said the key."""


class ModelNameError(ValueError):
    """A model's name, address or key is not right; the message says what to write."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model: ``name`` of ``provider``, at ``base_url`` if the name itself says where."""

    provider: str
    name: str
    base_url: str = ""

    def __str__(self) -> str:
        return f"{self.provider}:{self.name}"

    @property
    def spec(self) -> ProviderSpec:
        """Everything that holds for its provider."""
        return PROVIDERS[self.provider]


def parse_model(text: str, provider: str = "") -> ModelName:
    """Read a model's name; ``provider`` is the one that a name without one belongs to.

    Raises:
        ModelNameError: there is no such provider, or the form is not right.
    """
    known = ", ".join(PROVIDERS)

    if not text or len(text) > NAME_CHARS_MAX:
        raise ModelNameError(f"the model must have a name of up to {NAME_CHARS_MAX} characters: write provider:name")

    head, colon, rest = text.partition(":")

    if (not colon or head not in PROVIDERS) and provider:
        head, rest = provider, text

    if head not in PROVIDERS:
        raise ModelNameError(f"model {text!r} names no provider: write provider:name, where provider is one of {known}")

    name, at, base_url = rest.partition("@") if head == "openai-compatible" else (rest, "", "")

    if not name or (at and not base_url):
        form = "openai-compatible:NAME@BASE_URL" if head == "openai-compatible" else f"{head}:NAME"
        raise ModelNameError(f"model {text!r} is not complete: write {form}")

    if base_url:
        check_base_url(base_url)

    return ModelName(head, name, base_url)


def check_base_url(base_url: str) -> None:
    """Refuse what is no address of an HTTP server, or holds a password.

    Raises:
        ModelNameError: it is so; the address is not told, since it may hold what must not be.
    """
    try:
        parts = urlsplit(base_url)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        raise ModelNameError("the base URL cannot be read: write http://HOST:PORT/v1") from None

    if not fine:
        raise ModelNameError("the base URL must begin with http:// or https:// and name a host")

    if parts.username or parts.password or parts.query or parts.fragment:
        raise ModelNameError("the base URL must hold no user, password or query: give keys by planner.api_key_file")


@dataclass(frozen=True, slots=True)
class Access:
    """How a model is reached: where, and with which key, which came from ``key_source`` (empty: there is none)."""

    base_url: str
    key: str
    key_source: str

    def __repr__(self) -> str:
        return f"Access(base_url={self.base_url!r}, key_source={self.key_source!r})"


def find_access(
    model: ModelName,
    environment: Mapping[str, str],
    *,
    base_url: str = "",
    key_variable: str = "",
    key_file: Path | None = None,
) -> Access:
    """Find where a model is and the key for it: a file before a variable, the settings before what is well known.

    Raises:
        ModelNameError: there is no key where one is needed, or no address; the message says what to set.
    """
    spec = model.spec
    base_url = model.base_url or base_url or environment.get(spec.base_url_variable, "")
    key, source, default_url = _key(model, environment, key_variable, key_file)
    base_url = base_url or default_url or spec.base_url

    if not base_url:
        raise ModelNameError(
            f"where {model} is served is not known: set planner.base_url (AUTOGLM_PLANNER__BASE_URL) of the server"
        )

    check_base_url(base_url)
    return Access(base_url, key, source)


def _key(model: ModelName, environment: Mapping[str, str], variable: str, file: Path | None) -> tuple[str, str, str]:
    """Give the key, where it came from, and the address that goes with it."""
    spec = model.spec

    if file is not None:
        return _key_of_file(file), f"the file {file}", ""

    variables = {variable: ""} if variable else spec.keys

    for name, base_url in variables.items():
        if key := environment.get(name, "").strip():
            return _checked(key, name), name, base_url

    if spec.needs_key or variable:
        wanted = " or ".join(variables)
        raise ModelNameError(
            f"there is no key for {model}: set {wanted}, or planner.api_key_file to a file that holds it"
        )

    return "", "", ""


def _key_of_file(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(KEY_BYTES_MAX + 1)
    except OSError as error:
        raise ModelNameError(f"planner.api_key_file {file} cannot be read: {error.strerror}") from None

    if len(data) > KEY_BYTES_MAX:
        raise ModelNameError(
            f"planner.api_key_file {file} is longer than {KEY_BYTES_MAX} bytes: it must hold a key alone"
        )

    return _checked(data.decode("ascii", "replace").strip(), f"planner.api_key_file {file}")


def _checked(key: str, source: str) -> str:
    """Refuse what cannot stand in a header; the HTTP library's own error would show it."""
    if not key:
        raise ModelNameError(f"{source} is empty: it must hold the key")

    if not all("!" <= character <= "~" for character in key):
        raise ModelNameError(f"{source} holds more than a key: it must be one line of printable ASCII without spaces")

    return key


def found_in(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Give the providers whose well-known key is in the environment, each with the variable."""
    return [
        (name, variable)
        for name, spec in PROVIDERS.items()
        for variable in spec.keys
        if environment.get(variable, "").strip()
    ]

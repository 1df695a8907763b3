"""The one place that knows the model library: makes a model, asks it, and gives what it writes as it writes it.

Everything heavy is imported when the first model is made.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from autoglm._dataclasses import dataclass
from autoglm.model import DOMAIN, ErrorReason, Failure, JsonObject, Usage
from autoglm.wire import canonical_json
from autoglm_server.planner.llm import failures
from autoglm_server.planner.llm.models import EXTRA_LINE, Access, ModelName, Profile, Wire
from autoglm_server.planner.llm.tokens import TokenCount, tokens_in
from autoglm_server.planner.planner import PlannerError

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponseStreamEvent
    from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
    from pydantic_ai.profiles import ModelProfile
    from pydantic_ai.settings import ModelSettings

TALKATIVE = ("anthropic", "google_genai", "httpcore", "httpcore2", "httpx", "httpx2", "openai")
"""Libraries whose lower levels log whole requests, and with them prompts."""

PLAN = "plan"
"""What the function, or the schema, is called that the plan is asked for by."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to a model: ``schema`` is of the whole plan; times in seconds."""

    system: str
    user: str
    schema: JsonObject
    profile: Profile
    max_output_tokens: int
    temperature: float | None
    stall_timeout: float

    @property
    def tokens(self) -> int:
        """About how many tokens it has."""
        form = canonical_json(self.schema) if self.profile is not Profile.TEXT else ""
        return tokens_in(self.system) + tokens_in(self.user) + tokens_in(form)


@dataclass(frozen=True, slots=True)
class Delta:
    """More of what the model writes, in its part ``part``."""

    part: int
    text: str


@dataclass(slots=True)
class Reply:
    """What is known of a reply, also while it comes, and of one that broke off."""

    stream: StreamedResponse | None = None
    asked: int = 0
    """About how many tokens the server was asked with; 0 if it did not take the request."""
    written: TokenCount = field(default_factory=TokenCount)
    """About how many tokens came, what the model thinks included."""
    finish_reason: str = ""
    """Why the model stopped: ``stop``, ``length``, ``content_filter``, ``tool_call``, ``error``; empty: it did not say."""
    refusal: str = ""

    @property
    def told(self) -> Usage:
        """What the server itself said up to now."""
        used = self.stream.usage if self.stream is not None else None
        return (
            Usage(model_calls=1)
            if used is None
            else Usage(used.input_tokens, used.output_tokens, used.cache_read_tokens, model_calls=1)
        )

    @property
    def usage(self) -> Usage:
        """What the request cost: what the server said, and an estimate of what it did not come to say."""
        told = self.told
        over = self.finish_reason and told.output_tokens
        output = told.output_tokens if over else max(told.output_tokens, self.written.tokens)
        return replace(told, input_tokens=told.input_tokens or self.asked, output_tokens=output)

    @property
    def estimated(self) -> bool:
        """Whether `usage` is in part an estimate."""
        return self.usage != self.told


class Backend:
    """One model at one address, with one key."""

    def __init__(self, name: ModelName, access: Access, model: Model) -> None:
        """Hold ``model``; :func:`make_backend` makes it."""
        self.name = name
        self._access = access
        self._model = model
        self._open = AsyncExitStack()
        self._entered = False

    async def ask(self, ask: Ask, reply: Reply) -> AsyncGenerator[Delta, None]:
        """Ask, and give what the model writes; ``reply`` is filled in on the way.

        Raises:
            PlannerError: it could not be asked, or the answer broke off.
        """
        from pydantic_ai import exceptions  # noqa: PLC0415
        from pydantic_ai.direct import model_request_stream  # noqa: PLC0415
        from pydantic_ai.messages import ModelRequest, SystemPromptPart, UserPromptPart  # noqa: PLC0415

        await self._enter()
        reply.asked = ask.tokens
        messages: list[Any] = [ModelRequest(parts=[SystemPromptPart(ask.system), UserPromptPart(ask.user)])]
        stream: StreamedResponse | None = None

        try:
            async with (
                model_request_stream(
                    self._model,
                    messages,
                    model_settings=self._settings(ask),
                    model_request_parameters=_parameters(ask),
                ) as stream,
                aclosing(_texts(stream, reply)) as texts,
            ):
                reply.stream = stream
                async for delta in texts:
                    yield delta
        except exceptions.ContentFilterError:
            reply.finish_reason = "content_filter"
        except exceptions.ModelAPIError as error:
            if stream is None and _refused_or_unsent(error):
                reply.asked = 0

            raise PlannerError(self._failure(error)) from None
        except exceptions.UserError as error:
            reply.asked = 0
            said = failures.masked(error.message, self._secrets())[: failures.TOLD_CHARS_MAX]
            message = f"{self.name} cannot be asked like this, see planner.profile: {said}"
            raise PlannerError(failures.failed(message)) from None
        except exceptions.UnexpectedModelBehavior:
            message = f"{self.name} gave nothing that can be read"
            raise PlannerError(failures.failed(message, retryable=True)) from None
        finally:
            if stream is not None:
                _fill(reply, stream)

    def _failure(self, error: Any) -> Failure:
        return failures.of_api(error, str(self.name), self._access.key_source, self._secrets())

    def _secrets(self) -> Sequence[str]:
        return (self._access.key,)

    async def _enter(self) -> None:
        if not self._entered:
            self._entered = True
            await self._open.enter_async_context(self._model)

    async def close(self) -> None:
        """Close its connections."""
        await self._open.aclose()

    def _settings(self, ask: Ask) -> ModelSettings:
        settings: dict[str, Any] = {
            "max_tokens": ask.max_output_tokens,
            "timeout": ask.stall_timeout,
            "max_retries": 0,  # the scheduler makes a round again, and journals it
        }

        if ask.temperature is not None:
            settings["temperature"] = ask.temperature

        wire = self.name.spec.wire

        if wire is Wire.ANTHROPIC and ask.profile is Profile.TOOL:
            settings["anthropic_eager_input_streaming"] = True

        if wire not in (Wire.ANTHROPIC, Wire.GOOGLE):
            # A usage in each chunk is what was used so far, also where nobody asked for it; else the library adds them up.
            settings["openai_continuous_usage_stats"] = True

            if wire is not Wire.VLLM:  # the others do not know that one may ask for it
                settings["extra_body"] = {"stream_options": {"include_usage": True}}

        if wire is Wire.GLM and ask.profile is Profile.TOOL:
            settings["extra_body"] |= {"tool_stream": True}

        return settings  # type: ignore[return-value]


def _parameters(ask: Ask) -> ModelRequestParameters:
    from pydantic_ai.models import ModelRequestParameters  # noqa: PLC0415
    from pydantic_ai.output import OutputObjectDefinition  # noqa: PLC0415
    from pydantic_ai.tools import ToolDefinition  # noqa: PLC0415

    match ask.profile:
        case Profile.JSON_SCHEMA:
            wanted = OutputObjectDefinition(json_schema=ask.schema, name=PLAN, strict=False)
            return ModelRequestParameters(output_mode="native", output_object=wanted)
        case Profile.TOOL:
            tool = ToolDefinition(
                name=PLAN,
                description="Give the next steps of the plan, or the answer.",
                parameters_json_schema=ask.schema,
                kind="output",
                strict=False,
            )
            return ModelRequestParameters(output_mode="tool", output_tools=[tool], allow_text_output=False)
        case Profile.TEXT:
            return ModelRequestParameters()


def _refused_or_unsent(error: Any) -> bool:
    """Whether a request cost nothing: it was answered with an error, or there was nobody to send it to."""
    return getattr(error, "status_code", None) is not None or getattr(error, "phase", "") in ("connect", "pool")


async def _texts(stream: StreamedResponse, reply: Reply) -> AsyncGenerator[Delta, None]:
    async for event in stream:
        text = _text(event)
        reply.written.add(text or _thought(event))
        if text:
            yield Delta(event.index, text)  # type: ignore[union-attr]


def _text(event: ModelResponseStreamEvent) -> str:
    """Give what an event adds to the model's output; what it thinks is not part of that."""
    from pydantic_ai import messages  # noqa: PLC0415

    match event:
        case messages.PartStartEvent(part=messages.TextPart(content=text)):
            return text
        case messages.PartStartEvent(part=messages.ToolCallPart(args=arguments)):
            return arguments if isinstance(arguments, str) else canonical_json(arguments) if arguments else ""
        case messages.PartDeltaEvent(delta=messages.TextPartDelta(content_delta=text)):
            return text
        case messages.PartDeltaEvent(delta=messages.ToolCallPartDelta(args_delta=arguments)):
            return arguments if isinstance(arguments, str) else canonical_json(arguments) if arguments else ""
        case _:
            return ""


def _thought(event: ModelResponseStreamEvent) -> str:
    """Give what an event adds to what the model thinks, which is paid for like its output."""
    from pydantic_ai import messages  # noqa: PLC0415

    match event:
        case messages.PartStartEvent(part=messages.ThinkingPart(content=text)):
            return text
        case messages.PartDeltaEvent(delta=messages.ThinkingPartDelta(content_delta=text)):
            return text or ""
        case _:
            return ""


def _fill(reply: Reply, stream: StreamedResponse) -> None:
    details = stream.provider_details or {}

    if details.get("finish_reason"):  # else the library takes a stream that broke off for one that ended well
        reply.finish_reason = reply.finish_reason or str(stream.finish_reason or details["finish_reason"])

    refusal = details.get("refusal")

    if stream.finish_reason == "content_filter" or refusal:
        reply.finish_reason = "content_filter"
        reply.refusal = str(refusal or "")


def make_backend(name: ModelName, access: Access) -> Backend:
    """Make a model; nothing is sent before it is asked. Takes seconds the first time: call it beside the loop.

    Raises:
        PlannerError: what it needs is not installed.
    """
    try:
        import pydantic_ai.direct  # noqa: F401, PLC0415 - asking needs it too, and does so on the loop

        model = _make(name, access)
    except ImportError as error:
        message = f"{name} needs packages that are not installed ({error.name or 'pydantic-ai-slim'}): {EXTRA_LINE}"
        raise PlannerError(Failure(ErrorReason.PLANNER_UNAVAILABLE.name, DOMAIN, message)) from None

    for logger in TALKATIVE:
        log = logging.getLogger(logger)
        log.setLevel(max(log.level, logging.WARNING))

    return Backend(name, access, model)


def _make(name: ModelName, access: Access) -> Model:
    match name.spec.wire:
        case Wire.ANTHROPIC:
            from pydantic_ai.models.anthropic import AnthropicModel  # noqa: PLC0415
            from pydantic_ai.providers.anthropic import AnthropicProvider  # noqa: PLC0415

            provider = AnthropicProvider(api_key=access.key, base_url=access.base_url)
            return AnthropicModel(name.name, provider=provider)
        case Wire.GOOGLE:
            from pydantic_ai.models.google import GoogleModel  # noqa: PLC0415
            from pydantic_ai.providers.google import GoogleProvider  # noqa: PLC0415

            return GoogleModel(name.name, provider=GoogleProvider(api_key=access.key, base_url=access.base_url))
        case Wire.GLM:
            from pydantic_ai.models.zai import ZaiModel  # noqa: PLC0415
            from pydantic_ai.providers.zai import ZaiProvider  # noqa: PLC0415

            return ZaiModel(name.name, provider=ZaiProvider(api_key=access.key, base_url=access.base_url))
        case _:
            return _chat(name, access)


def _chat(name: ModelName, access: Access) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415
    from pydantic_ai.providers.deepseek import DeepSeekProvider  # noqa: PLC0415
    from pydantic_ai.providers.ollama import OllamaProvider  # noqa: PLC0415
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider  # noqa: PLC0415
    from pydantic_ai.providers.vllm import VLLMProvider  # noqa: PLC0415

    key, url = access.key or "api-key-not-set", access.base_url
    older: Any = {"openai_chat_supports_max_completion_tokens": False}  # what every server but OpenAI's own knows

    match name.spec.wire:
        case Wire.OPENAI:
            return OpenAIChatModel(name.name, provider=OpenAIProvider(base_url=url, api_key=key))
        case Wire.OLLAMA:
            return OpenAIChatModel(name.name, provider=OllamaProvider(base_url=url, api_key=key), profile=older)
        case Wire.VLLM:
            return OpenAIChatModel(name.name, provider=VLLMProvider(base_url=url, api_key=key), profile=older)
        case Wire.DEEPSEEK:
            deepseek: ModelProfile = {**(DeepSeekProvider.model_profile(name.name) or {}), **older}
            made = OpenAICompatibleProvider(name.provider, base_url=url, api_key=key)
            return OpenAIChatModel(name.name, provider=made, profile=deepseek)
        case Wire.QWEN:
            from pydantic_ai.providers.alibaba import AlibabaProvider  # noqa: PLC0415

            provider = AlibabaProvider(api_key=key, base_url=url)
            return OpenAIChatModel(name.name, provider=provider, profile=older)
        case _:
            schema: Any = {"supports_json_schema_output": True, **older}
            made = OpenAICompatibleProvider(name.provider, base_url=url, api_key=key)
            return OpenAIChatModel(name.name, provider=made, profile=schema)

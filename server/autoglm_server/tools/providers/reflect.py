"""Any gRPC service as tools, by reflection: one for each method that takes one message."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from autoglm._dataclasses import dataclass
from autoglm.model import (
    DOMAIN,
    Effect,
    ErrorReason,
    Failure,
    Json,
    JsonObject,
    Tool,
    ToolProgress,
    ToolResult,
    Violation,
)
from autoglm.wire import normal_json
from autoglm_server.tools.failures import invalid_output, one_line
from autoglm_server.tools.providers.endpoints import Endpoint
from autoglm_server.tools.providers.links import POLL_SECONDS, Link
from autoglm_server.tools.providers.messages import MessageError, from_json, is_object, schema_of, to_json
from autoglm_server.tools.providers.reflection import Contract, Reflected, join, reflect
from autoglm_server.tools.providers.statuses import failure_of
from autoglm_server.tools.references import invalid_arguments
from autoglm_server.tools.tool import Invocation, ToolCallError

MESSAGES_MAX: Final = 10_000
"""How many messages of one stream are collected."""
STREAM_BYTES_MAX: Final = 4 << 20
"""How large they may be together on the wire; an output's own limit is checked after."""
KEEPALIVE_MS: Final = 300_000
"""Servers that were not set up for more often take a shorter one for an attack, and cut the connection."""
_NAME_MAX: Final = 128
_VALUE: Final = "value"
"""The one argument of a method whose message is no object in JSON, such as google.protobuf.StringValue."""

_KEY = re.compile(r"[\x21-\x7e]{1,256}")
_EFFECTS: Final = {
    MethodOptions.NO_SIDE_EFFECTS: Effect.READ_ONLY,
    MethodOptions.IDEMPOTENT: Effect.IDEMPOTENT,
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Method:
    """A method, ready to be called."""

    path: str
    tool: Tool
    streams: bool
    wrapped: bool
    pool: DescriptorPool
    request: type[Message]
    response: type[Message]


class ReflectProvider:
    """The methods of a gRPC server's services; without those that take a stream."""

    def __init__(self, name: str, endpoint: Endpoint, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Serve the methods at ``endpoint``, whose path names the services, separated by commas; all without."""
        self._name = name
        self._wanted = tuple(filter(None, endpoint.path.split(",")))
        self._link = Link(
            name,
            endpoint,
            refresh=self._refresh,
            changed=self._show,
            keepalive_ms=KEEPALIVE_MS,
            poll_seconds=poll_seconds,
        )
        self._reflected: Reflected | None = None
        self._methods: dict[str, _Method] = {}
        self._shown: tuple[Tool, ...] = ()

    @property
    def name(self) -> str:
        """What the configuration calls it."""
        return self._name

    async def start(self) -> None:
        """Connect; a server that is away is no error, its tools come when it does."""
        await self._link.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self._link.stop()

    def tools(self) -> Sequence[Tool]:
        """Give the methods it had last; not available while it cannot be reached."""
        return self._shown

    def refresh(self) -> None:
        """Ask soon what it offers."""
        self._link.poke()

    async def call(self, invocation: Invocation) -> ToolResult:
        """Make a call; see :class:`~autoglm_server.tools.tool.Provider`."""
        name = f"{self._name}.{invocation.tool}"
        method = self._methods.get(invocation.tool)
        if method is None:
            raise self._link.unavailable(name, "it has no such method any more")

        request = _request(method, invocation.arguments)
        key = invocation.idempotency_key
        metadata = (("idempotency-key", key),) if _KEY.fullmatch(key) else ()

        async def send(channel: grpc.aio.Channel) -> Json:
            make: Any = channel.unary_stream if method.streams else channel.unary_unary
            call = make(method.path)(request, timeout=invocation.timeout, metadata=metadata)
            try:
                return await (_all(method, call, invocation, name) if method.streams else _only(method, call, name))
            finally:
                call.cancel()

        try:
            return ToolResult(output=await self._link.send(name, invocation.timeout, send))
        except grpc.RpcError as failed:
            failure = failure_of(failed, name, method.tool.effect, timeout=invocation.timeout)
            if failure.outcome_unknown or failure.reason == grpc.StatusCode.UNIMPLEMENTED.name:
                self._link.poke()

            raise ToolCallError(failure) from None

    async def _refresh(self, channel: grpc.aio.Channel) -> None:
        """Read the descriptors, and make tools of them if they are others than before."""
        reflected = await reflect(channel, self._wanted)
        if reflected == self._reflected:
            return

        methods = {method.tool.name: method for method in _methods(join(reflected), len(self._name) + 1)}
        _log.info("the provider %s has %d methods to call", self._name, len(methods))
        self._reflected, self._methods = reflected, methods
        self._show()

    def _show(self) -> None:
        """Make the list anew: the catalog compares its identity."""
        reached = self._link.available
        self._shown = tuple(dataclasses.replace(one.tool, available=reached) for one in self._methods.values())


def _methods(contract: Contract, prefix: int) -> list[_Method]:
    """Give the methods that can be tools; ``prefix`` is how long what the catalog puts before their names is."""
    found: list[_Method] = []
    simple = Counter(service.name for service in contract.services)
    for service in contract.services:
        scope = "" if len(contract.services) == 1 else f"{_scope(service, simple)}."
        for method in service.methods:
            if method.client_streaming:
                _log.info("%s is left out: it takes a stream of messages", method.full_name)
                continue

            if prefix + len(scope + method.name) > _NAME_MAX:
                _log.warning("%s is left out: its name is too long for a tool", method.full_name)
                continue

            try:
                found.append(_method(method, scope + method.name, contract))
            except MessageError as error:
                _log.warning("%s is left out: %s", method.full_name, error)

    return found


def _scope(service: ServiceDescriptor, simple: Counter[str]) -> str:
    return str(service.name if simple[service.name] == 1 else service.full_name)


def _method(method: MethodDescriptor, name: str, contract: Contract) -> _Method:
    wrapped = not is_object(method.input_type)
    inputs = schema_of(method.input_type, contract.comments)
    if wrapped:
        inputs = {"type": "object", "properties": {_VALUE: inputs}, "required": [_VALUE], "additionalProperties": False}

    outputs = schema_of(method.output_type, contract.comments, output=True, many=method.server_streaming)
    service = method.containing_service.full_name
    described = (
        contract.comments.get(method.full_name) or f"Calls the method {method.name} of the gRPC service {service}."
    )
    tool = Tool(
        name=name,
        description=described,
        input_schema=_text(inputs),
        output_schema=_text(outputs),
        effect=_EFFECTS.get(method.GetOptions().idempotency_level, Effect.NON_IDEMPOTENT),
        open_world=True,
        tags=(service,),
        available=True,
    )
    return _Method(
        path=f"/{service}/{method.name}",
        tool=tool,
        streams=method.server_streaming,
        wrapped=wrapped,
        pool=contract.pool,
        request=message_factory.GetMessageClass(method.input_type),
        response=message_factory.GetMessageClass(method.output_type),
    )


def _text(schema: JsonObject) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _request(method: _Method, arguments: JsonObject) -> bytes:
    value = arguments[_VALUE] if method.wrapped else arguments
    try:
        return from_json(value, method.request(), method.pool).SerializeToString()
    except MessageError as error:
        raise ToolCallError(invalid_arguments([Violation("arguments", one_line(str(error), 300), "MESSAGE")])) from None


async def _only(method: _Method, call: Any, name: str) -> Json:
    return _read(method, await call, name)


async def _all(method: _Method, call: Any, invocation: Invocation, name: str) -> Json:
    """Collect the messages of a stream, telling each as progress."""
    found: list[Json] = []
    size = 0
    while (data := await call.read()) is not grpc.aio.EOF:
        size += len(data)
        if len(found) >= MESSAGES_MAX or size > STREAM_BYTES_MAX:
            told = f"{name} was stopped: it streamed more than {MESSAGES_MAX} messages or {STREAM_BYTES_MAX} bytes"
            raise ToolCallError(Failure(ErrorReason.OUTPUT_TOO_LARGE.name, DOMAIN, told))

        found.append(_read(method, data, name))
        invocation.report(ToolProgress(0.0, f"message {len(found)}", found[-1]))

    if (code := await call.code()) is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )

    return found


def _read(method: _Method, data: bytes, name: str) -> Json:
    try:
        return normal_json(to_json(method.response.FromString(data), method.pool))
    except DecodeError:
        raise invalid_output(name, f"it is no {method.response.DESCRIPTOR.full_name}") from None
    except ValueError as error:
        raise invalid_output(name, one_line(str(error), 200)) from None

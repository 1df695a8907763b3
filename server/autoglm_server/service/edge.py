"""The whole edge: a gRPC server with all services behind one boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc  # type: ignore[import-untyped]

from autoglm.v1 import plan_service_pb2_grpc, tool_service_pb2_grpc
from autoglm_server.service import accepting, reflection
from autoglm_server.service.plans import RAW_METHODS

if TYPE_CHECKING:
    from autoglm_server.service.health import Health
    from autoglm_server.service.interceptors import Boundary
    from autoglm_server.service.plans import PlanService
    from autoglm_server.service.tools import ToolService

PLANS: Final = "autoglm.v1.PlanService"
MESSAGE_BYTES_MAX: Final = 4 << 20
"""The largest message of the transport, after decompression; our own limits are below it, and told better."""


def options(calls_per_connection: int) -> list[tuple[str, int]]:
    """Give the transport's options."""
    return [
        ("grpc.so_reuseport", 0),  # by default a second server takes the same port without a word
        ("grpc.max_concurrent_streams", calls_per_connection),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_metadata_size", 8 << 10),
        ("grpc.absolute_max_metadata_size", 16 << 10),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        (
            "grpc.http2.ping_timeout_ms",
            10_000,
        ),  # without it a frozen peer is noticed after a minute, whatever the above says
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.bdp_probe", 0),  # 92 KB instead of 6 MB are sent to a watcher that reads nothing
    ]


def build(
    *, plans: PlanService, tools: ToolService, health: Health, boundary: Boundary, calls_per_connection: int
) -> grpc.aio.Server:
    """Make the server; it has no port and is not started."""
    server = accepting.server(boundary, options(calls_per_connection))
    registrar: Any = _Registrar(server)
    plan_service_pb2_grpc.add_PlanServiceServicer_to_server(plans, registrar)
    tool_service_pb2_grpc.add_ToolServiceServicer_to_server(tools, registrar)
    health_pb2_grpc.add_HealthServicer_to_server(health, registrar)
    reflection.add_to_server(reflection.Reflection(reflection.contract), registrar)
    return server


class _Registrar:
    """Stands for a server while generated code registers: how calls are taken up, and which answers are bytes already."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Leave these out: they are the registered ones below again."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        accepting.add(self._server, service, {name: _raw(service, name, handlers[name]) for name in handlers})


def _raw(service: str, name: str, handler: Any) -> Any:
    """Give a handler whose answers are sent as they are, if its method writes bytes."""
    if service != PLANS or name not in RAW_METHODS:
        return handler

    read = handler.request_deserializer
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(handler.unary_unary, request_deserializer=read)

    return grpc.unary_stream_rpc_method_handler(handler.unary_stream, request_deserializer=read)

"""A gRPC service that nobody here has code for: compiled from text, served by generic handlers."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2
from grpc_tools import protoc

from autoglm_server.service import reflection as served_reflection
from autoglm_server.tools.providers.reflection import Contract, Reflected, join

SOURCE = Path(__file__).parent / "zoo.proto"
OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1))


@lru_cache
def files(source: str) -> tuple[FileDescriptorProto, ...]:
    """Compile a proto file, given as text; gives it with its imports and comments."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "zoo.proto").write_text(source)
        out = Path(folder) / "out"
        include = Path(protoc.__file__).parent / "_proto"
        arguments = ["", f"-I{folder}", f"-I{include}", "--include_imports", "--include_source_info"]
        assert protoc.main([*arguments, f"--descriptor_set_out={out}", "zoo.proto"]) == 0
        return tuple(FileDescriptorSet.FromString(out.read_bytes()).file)


def contract(source: str = "", services: Iterable[str] = ("zoo.v1.Zoo",)) -> Contract:
    found = files(source or SOURCE.read_text())
    return join(Reflected(tuple(services), {file.name: file.SerializeToString() for file in found}))


def message_class(name: str) -> type[Message]:
    return GetMessageClass(contract().pool.FindMessageTypeByName(name))


Behaviour = Callable[[bytes, Any], Awaitable[Any]]


@asynccontextmanager
async def zoo(
    behaviours: dict[str, Behaviour],
    *,
    source: str = "",
    versions: Iterable[str] = served_reflection.VERSIONS,
    service: str = "zoo.v1.Zoo",
    address: str = "127.0.0.1:0",
) -> AsyncIterator[str]:
    """Serve methods that take and give bytes, and reflection; those that write are named ``stream:METHOD``."""
    server = grpc.aio.server(options=OPTIONS)
    handlers: dict[str, Any] = {}
    for name, behaviour in behaviours.items():
        make: Any = (
            grpc.unary_stream_rpc_method_handler if name.startswith("stream:") else grpc.unary_unary_rpc_method_handler
        )
        handlers[name.removeprefix("stream:")] = make(behaviour)

    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    descriptors = served_reflection.Descriptors(files(source or SOURCE.read_text()))
    served = served_reflection.Reflection(lambda: descriptors)
    one: Any = grpc.stream_stream_rpc_method_handler
    table = {
        "ServerReflectionInfo": one(
            served.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
    for version in versions:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{version}.ServerReflection", table),))

    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)

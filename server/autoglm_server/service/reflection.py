"""Server reflection, v1 and v1alpha, with the contract's comments: ``grpcurl describe`` reads as documentation.

The descriptors inside the generated Python code have no comments. The generator also writes them, with the comments, to
a file beside it, and this serves them from there. Both versions of the protocol have the same messages.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2 as pb

if TYPE_CHECKING:
    import grpc.aio

ALPHA: Final = "grpc.reflection.v1alpha"
VERSIONS: Final = ("grpc.reflection.v1", ALPHA)
QUERY_MAX: Final = 512


class Descriptors:
    """The files of the services, found by name and by what they define."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        """Index ``files``; what they import is taken from the generated code."""
        self._files: dict[str, FileDescriptorProto] = {}
        self._symbols: dict[str, str] = {}
        self.services: list[str] = []

        for file in files:
            self._files[file.name] = file

        for file in list(self._files.values()):
            self._import(file)

        for file in self._files.values():
            self._index(file)

    def _import(self, file: FileDescriptorProto) -> None:
        for name in file.dependency:
            if name not in self._files:
                found = FileDescriptorProto()
                descriptor_pool.Default().FindFileByName(name).CopyToProto(found)
                self._files[name] = found
                self._import(found)

    def _index(self, file: FileDescriptorProto) -> None:
        self.services += [f"{file.package}.{service.name}" for service in file.service]
        self._symbols |= dict.fromkeys(symbols(file), file.name)

    def by_name(self, name: str) -> list[bytes]:
        """Give a file and all it imports, itself first; nothing if it is not known."""
        found: dict[str, bytes] = {}
        self._collect(name, found)
        return list(found.values())

    def by_symbol(self, symbol: str) -> list[bytes]:
        """Give the file that defines a symbol, and all it imports; nothing if it is not known."""
        return self.by_name(self._symbols.get(symbol.removeprefix("."), ""))

    def _collect(self, name: str, found: dict[str, bytes]) -> None:
        if name in found or name not in self._files:
            return

        file = self._files[name]
        found[name] = file.SerializeToString()

        for other in file.dependency:
            self._collect(other, found)


def contract() -> Descriptors:
    """Give the descriptors of all that this server serves."""
    raw = resources.files("autoglm.v1").joinpath("descriptors.binpb").read_bytes()
    health, alpha = FileDescriptorProto(), FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(health)
    pb.DESCRIPTOR.CopyToProto(alpha)
    return Descriptors([*FileDescriptorSet.FromString(raw).file, health, alpha, _renamed(alpha)])


def _renamed(alpha: FileDescriptorProto) -> FileDescriptorProto:
    """Give v1's own file: it is v1alpha's in another package."""
    file = FileDescriptorProto()
    file.CopyFrom(alpha)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", VERSIONS[0]
    methods = [method for service in file.service for method in service.method]
    fields = [field for message in file.message_type for field in message.field]

    for method in methods:
        method.input_type = method.input_type.replace(ALPHA, VERSIONS[0])
        method.output_type = method.output_type.replace(ALPHA, VERSIONS[0])

    for field in fields:
        if field.type_name:  # set, even to nothing, it would say that a scalar is a message
            field.type_name = field.type_name.replace(ALPHA, VERSIONS[0])

    return file


def symbols(file: FileDescriptorProto) -> Iterator[str]:
    """Give the full name of everything a file defines."""
    package = f"{file.package}." if file.package else ""

    for service in file.service:
        yield f"{package}{service.name}"
        yield from (f"{package}{service.name}.{method.name}" for method in service.method)

    for message in file.message_type:
        yield from _of_message(f"{package}{message.name}", message)

    for enum in file.enum_type:
        yield from _of_enum(f"{package}{enum.name}", enum)


def _of_message(name: str, message: DescriptorProto) -> Iterator[str]:
    yield name
    yield from (f"{name}.{field.name}" for field in message.field)
    yield from (f"{name}.{oneof.name}" for oneof in message.oneof_decl)

    for inner in message.nested_type:
        yield from _of_message(f"{name}.{inner.name}", inner)

    for enum in message.enum_type:
        yield from _of_enum(f"{name}.{enum.name}", enum)


def _of_enum(name: str, enum: EnumDescriptorProto) -> Iterator[str]:
    yield name
    scope = name.rpartition(".")[0]
    yield from (f"{scope}.{value.name}" for value in enum.value)


class Reflection:
    """Answers questions about the descriptors."""

    def __init__(self, read: Callable[[], Descriptors]) -> None:
        """Serve what ``read`` gives, which is asked for at the first question: few servers are ever asked one."""
        self._read = read

    @functools.cached_property
    def _descriptors(self) -> Descriptors:
        return self._read()

    async def ServerReflectionInfo(
        self, requests: AsyncIterator[pb.ServerReflectionRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Answer each question in turn."""
        async for request in requests:
            response = self.answer(request)
            response.valid_host = request.host
            response.original_request.CopyFrom(request)
            await context.write(response)

    def answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        """Answer one question."""
        match request.WhichOneof("message_request"):
            case "list_services":
                services = [pb.ServiceResponse(name=name) for name in sorted(self._descriptors.services)]
                return pb.ServerReflectionResponse(list_services_response=pb.ListServiceResponse(service=services))
            case "file_by_filename":
                return self._files(self._descriptors.by_name, request.file_by_filename)
            case "file_containing_symbol":
                return self._files(self._descriptors.by_symbol, request.file_containing_symbol)
            case "all_extension_numbers_of_type" if self._descriptors.by_symbol(request.all_extension_numbers_of_type):
                numbers = pb.ExtensionNumberResponse(base_type_name=request.all_extension_numbers_of_type)
                return pb.ServerReflectionResponse(all_extension_numbers_response=numbers)
            case "all_extension_numbers_of_type" | "file_containing_extension":
                return _error(grpc.StatusCode.NOT_FOUND, "nothing here is extended")
            case _:
                return _error(grpc.StatusCode.INVALID_ARGUMENT, "no question")

    def _files(self, find: Callable[[str], list[bytes]], name: str) -> pb.ServerReflectionResponse:
        if files := find(name):
            return pb.ServerReflectionResponse(
                file_descriptor_response=pb.FileDescriptorResponse(file_descriptor_proto=files)
            )

        return _error(grpc.StatusCode.NOT_FOUND, f"{name[:QUERY_MAX]!r} is not known; list_services says what there is")


def _error(code: grpc.StatusCode, message: str) -> pb.ServerReflectionResponse:
    number: int = code.value[0]
    return pb.ServerReflectionResponse(error_response=pb.ErrorResponse(error_code=number, error_message=message))


def add_to_server(reflection: Reflection, server: grpc.aio.Server) -> None:
    """Register both versions."""
    handlers = {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            reflection.ServerReflectionInfo,
            request_deserializer=pb.ServerReflectionRequest.FromString,
            response_serializer=pb.ServerReflectionResponse.SerializeToString,
        )
    }

    for version in VERSIONS:
        service = f"{version}.ServerReflection"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_registered_method_handlers(service, handlers)

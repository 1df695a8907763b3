"""Asking a gRPC server by reflection for the descriptors of its services; ``v1``, or ``v1alpha`` where that is not there.

What comes back is kept in a pool of its own: two providers may well have different files of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2 as pb

from autoglm._dataclasses import dataclass
from autoglm_server.tools.failures import one_line
from autoglm_server.tools.providers.links import OfferError
from autoglm_server.tools.validation import nearest

SECONDS: Final = 10.0
"""How long a server may take to tell all about its services."""
SERVICES_MAX: Final = 500
FILES_MAX: Final = 2000
BYTES_MAX: Final = 16 << 20
"""How much its descriptors may be, serialised."""
VERSIONS: Final = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
_INFRASTRUCTURE: Final = "grpc."
_COMMENT_MAX: Final = 4 << 10
_GOOGLE: Final = {
    module.DESCRIPTOR.name: module.DESCRIPTOR
    for module in (
        any_pb2,
        api_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        source_context_pb2,
        struct_pb2,
        timestamp_pb2,
        type_pb2,
        wrappers_pb2,
    )
}


@dataclass(frozen=True, slots=True)
class Reflected:
    """What a server told: the files by name, as they came, and the names of the services that were asked for."""

    services: tuple[str, ...]
    files: Mapping[str, bytes]


async def reflect(channel: grpc.aio.Channel, wanted: Sequence[str] = ()) -> Reflected:
    """Read the descriptors of the services ``wanted``, by full name or its end, or of all but gRPC's own.

    Raises:
        OfferError: it has no reflection, no such service, or tells something that cannot be used or is too much.
        grpc.RpcError: it cannot be asked.
    """
    for version in VERSIONS:
        try:
            return await _read(channel, version, wanted)
        except grpc.RpcError as failed:
            call: Any = failed
            if call.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise

    raise OfferError("it has no reflection (neither v1 nor v1alpha); switch it on, or mount it by an OpenAPI document")


async def _read(channel: grpc.aio.Channel, version: str, wanted: Sequence[str]) -> Reflected:
    method: Any = channel.stream_stream(f"/{version}.ServerReflection/ServerReflectionInfo")
    call = method(timeout=SECONDS)
    try:
        return await _Conversation(call).all(wanted)
    finally:
        call.cancel()


class _Conversation:
    """One stream of questions and answers."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._files: dict[str, bytes] = {}
        self._imports: dict[str, list[str]] = {}
        self._bytes = 0

    async def all(self, wanted: Sequence[str]) -> Reflected:
        answer = await self._ask(pb.ServerReflectionRequest(list_services="*"))
        found = sorted({service.name for service in answer.list_services_response.service})
        services = _chosen(found, wanted)
        for service in services:
            self._take(await self._ask(pb.ServerReflectionRequest(file_containing_symbol=service)))

        while missing := sorted({name for names in self._imports.values() for name in names} - self._files.keys()):
            for name in missing:
                await self._import(name)

        return Reflected(services, self._files)

    async def _ask(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        await self._call.write(request.SerializeToString())
        data = await self._call.read()
        if data is grpc.aio.EOF:
            code, details = await self._call.code(), await self._call.details()
            if code is grpc.StatusCode.OK:
                raise OfferError("its reflection ended without an answer")

            raise grpc.aio.AioRpcError(
                code, await self._call.initial_metadata(), await self._call.trailing_metadata(), details
            )

        try:
            return pb.ServerReflectionResponse.FromString(data)
        except DecodeError:
            raise OfferError("what it answers by reflection is no ServerReflectionResponse") from None

    async def _import(self, name: str) -> None:
        """Take a file that another imports; google's own may be left out by a server, and everybody has them."""
        answer = await self._ask(pb.ServerReflectionRequest(file_by_filename=name))
        if not answer.HasField("error_response"):
            self._take(answer)

        if name not in self._files:
            self._keep(_known(name))

    def _take(self, answer: pb.ServerReflectionResponse) -> None:
        if answer.HasField("error_response"):
            raise OfferError(f"its reflection failed: {one_line(answer.error_response.error_message, 200)}")

        for data in answer.file_descriptor_response.file_descriptor_proto:
            try:
                self._keep(FileDescriptorProto.FromString(data))
            except DecodeError:
                raise OfferError("a file that it tells by reflection is no FileDescriptorProto") from None

    def _keep(self, file: FileDescriptorProto) -> None:
        if file.name in self._files:
            return

        data = file.SerializeToString(deterministic=True)
        self._bytes += len(data)
        if len(self._files) >= FILES_MAX or self._bytes > BYTES_MAX:
            raise OfferError(f"its descriptors are more than {FILES_MAX} files or {BYTES_MAX} bytes")

        self._files[file.name] = data
        self._imports[file.name] = list(file.dependency)


def _chosen(found: list[str], wanted: Sequence[str]) -> tuple[str, ...]:
    if not wanted:
        services = [name for name in found if not name.startswith(_INFRASTRUCTURE)]
        if not services:
            raise OfferError("it has no services but those of gRPC itself")
    else:
        services = []
        for name in wanted:
            fit = [one for one in found if one == name or one.endswith(f".{name}")]
            if len(fit) != 1:
                near = fit or nearest(name, found) or found[:10]
                raise OfferError(f"{name!r} is not one of its services; there are {', '.join(near)}")

            services += fit

    if len(services) > SERVICES_MAX:
        raise OfferError(
            f"it has {len(services)} services, at most {SERVICES_MAX} are taken; name those that are wanted"
        )

    return tuple(services)


def _known(name: str) -> FileDescriptorProto:
    if name not in _GOOGLE:
        raise OfferError(f"a file imports {one_line(name, 200)!r}, which it does not tell")

    found = FileDescriptorProto()
    _GOOGLE[name].CopyToProto(found)
    return found


@dataclass(frozen=True, slots=True)
class Contract:
    """The descriptors of a server, joined."""

    pool: descriptor_pool.DescriptorPool
    services: tuple[ServiceDescriptor, ...]
    comments: Mapping[str, str]
    """What the sources say of a message, field, enum, service or method, by full name; empty where they came without."""


def join(reflected: Reflected) -> Contract:
    """Join files to a pool.

    Raises:
        OfferError: they do not fit together.
    """
    pool = descriptor_pool.DescriptorPool()
    comments: dict[str, str] = {}
    try:
        for file in _in_order({name: FileDescriptorProto.FromString(data) for name, data in reflected.files.items()}):
            comments |= dict(_comments(file))
            file.ClearField("source_code_info")
            pool.AddSerializedFile(file.SerializeToString())

        services = tuple(pool.FindServiceByName(name) for name in reflected.services)
    except (KeyError, TypeError, ValueError) as error:
        raise OfferError(f"its descriptors do not fit together: {one_line(str(error), 200)}") from None

    return Contract(pool, services, comments)


def _in_order(files: Mapping[str, FileDescriptorProto]) -> Iterator[FileDescriptorProto]:
    """Give the files, each after those it imports; one in a ring is left for the pool to refuse."""
    given: set[str] = set()
    waiting = [(name, False) for name in sorted(files, reverse=True)]
    begun: set[str] = set()
    while waiting:
        name, ready = waiting.pop()
        if ready:
            given.add(name)
            yield files[name]
        elif name not in begun and name in files:
            begun.add(name)
            waiting.append((name, True))
            waiting += [(one, False) for one in files[name].dependency]


def _comments(file: FileDescriptorProto) -> Iterable[tuple[str, str]]:
    names = dict(_places(file))
    for location in file.source_code_info.location:
        name = names.get(tuple(location.path))
        text = (location.leading_comments or location.trailing_comments).strip()
        if name and text:
            lines = (line.strip() for line in text.splitlines())
            yield name, "\n".join(lines)[:_COMMENT_MAX]


def _places(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Give the full names of all that can have a comment, by path in the file (see SourceCodeInfo)."""
    package = f"{file.package}." if file.package else ""
    for index, message in enumerate(file.message_type):
        yield from _message_places((4, index), package, message)

    for index, enum in enumerate(file.enum_type):
        yield from _enum_places((5, index), package, enum)

    for index, service in enumerate(file.service):
        yield (6, index), f"{package}{service.name}"
        for number, method in enumerate(service.method):
            yield (6, index, 2, number), f"{package}{service.name}.{method.name}"


def _message_places(
    path: tuple[int, ...], scope: str, message: DescriptorProto
) -> Iterator[tuple[tuple[int, ...], str]]:
    name = f"{scope}{message.name}"
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, 2, index), f"{name}.{field.name}"

    for index, nested in enumerate(message.nested_type):
        yield from _message_places((*path, 3, index), f"{name}.", nested)

    for index, enum in enumerate(message.enum_type):
        yield from _enum_places((*path, 4, index), f"{name}.", enum)


def _enum_places(path: tuple[int, ...], scope: str, enum: EnumDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, f"{scope}{enum.name}"

"""Asking a server which services it shows by reflection; the one place of the command line that knows gRPC."""

from __future__ import annotations

import grpc
from grpc_reflection.v1alpha import reflection_pb2

from autoglm import _grpc


def services(address: str, version: str, *, timeout: float) -> frozenset[str]:
    """Give the services' names by reflection ``v1`` or ``v1alpha``, which are equal on the wire; none if it is not there."""
    with grpc.insecure_channel(address, options=_grpc.options(address)) as channel:
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=timeout)

        try:
            answer = next(iter(call), None)
        except grpc.RpcError:
            return frozenset()
        finally:
            call.cancel()

    return frozenset(service.name for service in answer.list_services_response.service) if answer else frozenset()

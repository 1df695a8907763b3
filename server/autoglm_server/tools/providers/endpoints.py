"""Where a gRPC provider is: its URI read, and channels to it.

``grpc://HOST:PORT[,HOST:PORT…]`` gives one channel for each address listed. A name with many addresses (a headless
service, ``dns:///NAME:PORT``) is one channel that goes round its addresses by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import grpc
import grpc.aio

from autoglm import _grpc
from autoglm._dataclasses import dataclass
from autoglm.errors import InvalidRequestError

REPLICAS_MAX: Final = 64
"""How many addresses a URI may list."""
MESSAGE_BYTES_MAX: Final = 4 << 20
"""The largest message taken: an output of 1 MiB in its widest encoding fits, one that is larger is refused unread."""

# Whoever says NOT_SERVING is left out of the round, and comes back by itself; who has no health service is taken as well.
_SERVICE_CONFIG = '{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}'
_FILES = ("ca", "cert", "key")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is: gRPC targets, one for each replica that was named, and how to talk to them."""

    targets: tuple[str, ...]
    path: str = ""
    """What follows the first ``/`` after the addresses."""
    tls: Mapping[str, str] | None = None
    """Files: ``ca``, and ``cert`` with ``key`` to show who calls; ``name`` to expect in the certificate. None: plaintext."""

    @classmethod
    def parse(cls, rest: str, *, tls: bool = False) -> Endpoint:
        """Read what follows the scheme of a URI: ``//HOST:PORT[,…][/PATH][?ca=FILE…]``, or a target of gRPC's own.

        Raises:
            ValueError: it is neither; the message is a sentence with what to write.
        """
        body, _, query = rest.partition("?")
        options = _options(query, tls=tls)
        path = ""
        if body.startswith("//"):
            authority, _, path = body.removeprefix("//").partition("/")
            addresses = authority.split(",")
        else:
            addresses = [body]

        if not 0 < len(addresses) <= REPLICAS_MAX:
            raise ValueError(f"{len(addresses)} addresses are listed, at most {REPLICAS_MAX} are allowed")

        try:
            targets = tuple(_grpc.target(address.strip()) for address in addresses)
        except InvalidRequestError as error:
            raise ValueError(error.violations[0].description) from None

        return cls(targets, path, options if tls else None)

    def __str__(self) -> str:
        return ",".join(self.targets)

    def channels(self, *, keepalive_ms: int) -> list[grpc.aio.Channel]:
        """Open a channel to each target, in the running loop; none connects yet.

        Raises:
            OSError: a file of the TLS options cannot be read.
        """
        credentials = self._credentials()
        found: list[grpc.aio.Channel] = []
        for target in self.targets:
            options: list[tuple[str, Any]] = list(
                (
                    dict(_grpc.options(target))
                    | {
                        "grpc.service_config": _SERVICE_CONFIG,
                        "grpc.keepalive_time_ms": keepalive_ms,
                        "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
                        "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
                    }
                ).items()
            )
            if credentials is None:
                found.append(grpc.aio.insecure_channel(target, options=options))
                continue

            if name := (self.tls or {}).get("name"):
                options.append(("grpc.ssl_target_name_override", name))

            found.append(grpc.aio.secure_channel(target, credentials, options=options))

        return found

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if self.tls is None:
            return None

        ca, cert, key = (
            Path(self.tls[name]).expanduser().read_bytes() if name in self.tls else None for name in _FILES
        )
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def endpoint_opener(make: Callable[[str, Endpoint], Any], *, tls: bool = False) -> Callable[[str, str], Any]:
    """Give what opens a provider, for the table of schemes: ``make`` is given its name and its endpoint."""

    def open_(name: str, rest: str) -> Any:
        try:
            return make(name, Endpoint.parse(rest, tls=tls))
        except ValueError as error:
            raise ValueError(f"provider {name}: {error}") from None

    return open_


def _options(query: str, *, tls: bool) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    known = (*_FILES, "name") if tls else ()
    if wrong := [key for key, value in pairs if key not in known or not value]:
        told = (
            f"known are {', '.join(known)}"
            if known
            else "it takes none; those of TLS go with the scheme that ends in s"
        )
        raise ValueError(f"the option {wrong[0]!r} of the address is not known or is empty; {told}")

    if ("cert" in options) != ("key" in options):
        raise ValueError("the options cert and key of the address come together: the certificate and its private key")

    return options

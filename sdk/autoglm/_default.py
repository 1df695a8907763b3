"""The module's default client: ``autoglm.init()``, ``autoglm.run(...)``, ``autoglm.shutdown()``."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from autoglm._dataclasses import dataclass
from autoglm.client import Client, PlanHandle
from autoglm.errors import PreconditionError
from autoglm.model import ErrorReason

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(slots=True)
class _Default:
    client: Client | None = None
    asked: tuple[Any, ...] = ()
    process: int = 0


_default = _Default()
_lock = threading.Lock()


def init(
    address: str | None = None,
    *,
    timeout: float = 30.0,
    data_dir: str | os.PathLike[str] | None = None,
    server_args: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Client:
    """Connect, and make the client the default one, which ``autoglm.run`` uses; arguments are those of :class:`Client`.

    Without an address and without ``AUTOGLM_ADDRESS`` it is the embedded server's, which is started if need be. Asked
    again in the same way, it gives the same client, until that is closed. The program's end closes it.

    Raises:
        UnavailableError: the server cannot be reached, or does not start.
        PreconditionError: there is a default client of another address; call :func:`shutdown` first.

    >>> with autoglm.init() as client:  # doctest: +SKIP
    ...     print(client.run("15% of 2480").result().answer)
    """
    asked = (address, timeout, data_dir, tuple(server_args))

    with _lock:
        present = _present()

        if present is not None and _default.asked != asked:
            raise PreconditionError(
                f"There is a default client already, of {present.address}; call autoglm.shutdown() first, or make an "
                f"autoglm.Client beside it.",
                reason=ErrorReason.INVALID_REQUEST,
            )

        if present is None:
            present = Client(address, timeout=timeout, data_dir=data_dir, server_args=server_args, progress=progress)

            try:
                present.connect()
                present.info()
            except BaseException:
                present.close()
                raise

            _default.client, _default.asked, _default.process = present, asked, os.getpid()

        return present


def _typed_as(_: Callable[Concatenate[Client, _P], _R]) -> Callable[[Callable[..., _R]], Callable[_P, _R]]:
    """Give a function the parameters of a method of the client, for those who check types."""
    return lambda function: function


@_typed_as(Client.run)
def run(*arguments: Any, **named: Any) -> PlanHandle:
    """Make a plan with the default client, which is made by ``init()`` if there is none; see :meth:`Client.run`.

    >>> autoglm.run("15% of 2480").result().answer  # doctest: +SKIP
    """
    with _lock:
        present = _present()

    return (present or init()).run(*arguments, **named)


def shutdown() -> None:
    """Close the default client, if there is one; plans go on. The embedded server ends 5 s after its last client.

    >>> autoglm.shutdown()  # doctest: +SKIP
    """
    with _lock:
        present = _present()
        _default.client = None

    if present is not None:
        present.close()


def _present() -> Client | None:
    """Give the default client if it can be used: not closed, and not inherited by a fork."""
    client = _default.client
    return client if client is not None and not client.closed and _default.process == os.getpid() else None


atexit.register(shutdown)

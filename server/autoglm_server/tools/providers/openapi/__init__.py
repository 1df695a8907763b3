"""OpenAPI 3.0 and 3.1 documents as providers: ``openapi:FILE`` or ``openapi:URL``, each operation a tool (extra ``openapi``).

``document`` reads and follows references, ``schemas`` converts, ``operations`` makes tools, ``encoding`` and ``security``
write what a request is made of, ``requests`` puts it together and reads the answer, ``provider`` is the life of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoglm.model import Effect

if TYPE_CHECKING:
    from autoglm_server.settings import OpenApiSettings
    from autoglm_server.tools.secrets import Secrets
    from autoglm_server.tools.tool import Provider

__all__ = ["open_openapi"]


def open_openapi(
    name: str, rest: str, settings: OpenApiSettings | None = None, secrets: Secrets | None = None
) -> Provider:
    """Open the provider at the file or URL ``rest``.

    Raises:
        ValueError: the extra is missing, or the settings are wrong.
    """
    try:
        from autoglm_server.tools.providers.openapi.operations import Choices  # noqa: PLC0415 - an extra
        from autoglm_server.tools.providers.openapi.provider import OpenApiProvider, Source  # noqa: PLC0415
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("httpcore2", "anyio", "h11"):
            raise

        raise ValueError(f"provider {name}: openapi needs more: pip install 'open-autoglm[openapi]'") from None

    if settings is None:
        return OpenApiProvider(name, Source(rest), secrets)

    choices = Choices(
        server=settings.server,
        variables=settings.variables,
        include=settings.include,
        exclude=settings.exclude,
        effects={pattern: Effect[effect] for pattern, effect in settings.effects.items()},
        credentials=settings.auth,
        check_outputs=settings.check_outputs,
        timeout=settings.timeout,
    )
    source = Source(rest, choices, settings.headers, settings.refresh.total_seconds())
    return OpenApiProvider(name, source, secrets)

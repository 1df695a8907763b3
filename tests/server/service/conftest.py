"""The fixtures of this folder."""

from tests.server.service.harness import served

__all__ = ["served"]

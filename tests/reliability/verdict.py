"""What a promise found in a history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Verdict:
    """What a promise found: how often it was put to the test, and what broke it."""

    tries: int = 0
    violations: list[str] = field(default_factory=list)

    def expect(self, *, holds: bool, otherwise: str) -> None:
        """Count a test, and what broke the promise if it did not hold."""
        self.tries += 1
        if not holds:
            self.violations.append(otherwise)

    def asserted(self, check: Callable[[], None], where: str) -> None:
        """Count a test that raises."""
        self.tries += 1
        try:
            check()
        except (AssertionError, AttributeError, KeyError, LookupError, ValueError) as error:
            self.violations.append(f"{where}: {type(error).__name__}: {str(error)[:300]}")

"""When a call is made again: pure, with the times that a server gives."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest

from autoglm._retry import ATTEMPTS_MAX, REFUSED_MAX, Attempts
from autoglm.errors import AutoglmError, error
from autoglm.model import ErrorReason

BUSY = error(ErrorReason.TOO_MANY_CALLS, "later", retry_after=timedelta(seconds=0.2))
GONE = error(ErrorReason.SERVER_DRAINING, "going")


def pauses(attempts: Attempts, refusal: AutoglmError, remaining: float = 1e9) -> int:
    """How often it is made again."""
    for count in range(100):
        try:
            attempts.pause(refusal, remaining=remaining)
        except AutoglmError:
            return count

    raise AssertionError


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_call_that_was_refused_unread_is_made_again_whatever_it_is(repeatable: bool) -> None:
    assert pauses(Attempts(Random(1), repeatable=repeatable), BUSY) == REFUSED_MAX


def test_refusals_do_not_use_up_the_attempts_of_lost_connections() -> None:
    attempts = Attempts(Random(1))
    for _ in range(ATTEMPTS_MAX):
        assert attempts.pause(BUSY, remaining=60) >= 0.2

    assert pauses(attempts, GONE) == ATTEMPTS_MAX - 1


def test_it_is_not_waited_for_longer_than_the_call_lasts() -> None:
    assert pauses(Attempts(Random(1)), BUSY, remaining=0.2) == 0


def test_a_refusal_without_a_time_and_other_limits_are_final() -> None:
    for reason in (ErrorReason.TOO_MANY_CALLS, ErrorReason.TOO_MANY_PLANS):
        wait = None if reason is ErrorReason.TOO_MANY_CALLS else timedelta(seconds=1)
        assert pauses(Attempts(Random(1)), error(reason, "full", retry_after=wait)) == 0

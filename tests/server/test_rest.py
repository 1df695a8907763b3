"""Giving memory back while there is nothing to do: once in each quiet time, and not in any other."""

from __future__ import annotations

from autoglm_server.rest import Rest


class Server:
    """Something that works, and notes when it rested."""

    def __init__(self) -> None:
        self.calls = 0
        self.busy = False
        self.rested: list[int] = []
        self.rest = Rest(lambda: self.calls, lambda: self.busy, [self._note])

    def _note(self) -> None:
        self.rested.append(self.calls)


def test_rests_once_when_nothing_was_done_between_two_looks() -> None:
    server = Server()
    server.calls += 1
    server.rest.look()
    assert not server.rested
    for _ in range(3):
        server.rest.look()

    assert server.rested == [1]


def test_does_not_rest_before_it_worked() -> None:
    server = Server()
    for _ in range(3):
        server.rest.look()

    assert not server.rested


def test_does_not_rest_while_calls_come() -> None:
    server = Server()
    for _ in range(5):
        server.calls += 1
        server.rest.look()

    assert not server.rested


def test_does_not_rest_while_a_plan_goes_on() -> None:
    server = Server()
    server.calls, server.busy = 1, True
    for _ in range(5):
        server.rest.look()

    assert not server.rested
    server.busy = False
    server.rest.look()
    assert server.rested == [1]


def test_rests_again_after_work() -> None:
    server = Server()
    for _ in range(3):
        server.calls += 1
        for _ in range(3):
            server.rest.look()

    assert server.rested == [1, 2, 3]

"""Random ids."""

from __future__ import annotations

import os
import re

import pytest

from autoglm._ids import new_id


def test_are_ulids_that_sort_by_their_time_and_do_not_repeat() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch(r"[0-7][0-9a-hjkmnp-tv-z]{25}", one) for one in ids)
    assert [one[:10] for one in ids] == sorted(one[:10] for one in ids)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_was_forked_gives_out_others() -> None:
    new_id()  # draws for more than this one
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, new_id().encode())
        os._exit(0)

    os.close(write)
    with os.fdopen(read) as told:
        theirs = told.read()

    os.waitpid(child, 0)
    assert theirs[10:] not in [new_id()[10:] for _ in range(64)]

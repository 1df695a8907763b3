"""The work that every peer does, and how it is summed up. Runs in the peer's own environment, with nothing of ours.

A chain of 100 no-op steps (from the start of one to the start of the next), 64 plans of no-ops in flight, and one step, 200 steps
of 50 ms at once, and one more.
"""

from __future__ import annotations

import itertools
import json
import os
import time

PLANS = int(os.environ.get("PEER_PLANS", "64"))
STEPS = int(os.environ.get("PEER_STEPS", "20"))
CHAIN, FAN, SLEEP = 100, 200, 0.05


def quantile(figures, part):
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


async def measure(chain, many, fan, stamps, repeat=2):
    """``chain(n)`` runs a plan of n no-ops and notes their starts in ``stamps``, or gives them; ``many(p, n)``; ``fan(n)``."""
    await chain(10)
    await many(4, 3)
    gaps, fans = [], []

    for _ in range(repeat):
        stamps.clear()
        starts = sorted(await chain(CHAIN) or stamps)
        gaps += [b - a for a, b in itertools.pairwise(starts)]

    began = time.perf_counter()
    await many(PLANS, STEPS)
    rate = PLANS * STEPS / (time.perf_counter() - began)

    for _ in range(repeat):
        began = time.perf_counter()
        await fan(FAN)
        fans.append(time.perf_counter() - began)

    return {"steps": rate, "p50": quantile(gaps, 0.5) * 1e3, "fan": min(fans) * 1e3}


def tell(**figures):
    print("RESULT " + json.dumps(figures), flush=True)

"""A server starts without what reads requests, and makes it ready soon after."""

import subprocess
import sys

CODE = """
import asyncio, sys
from autoglm_server import app
from autoglm_server.settings import Settings
from autoglm_server.planner.rules import RulesPlanner
heavy = "autoglm_server.planner.rules.grammar"
before = heavy in sys.modules
class World:
    planners = {'rules': RulesPlanner()}

(work,) = app.warm_planner(Settings(), World())
asyncio.run(work)
print(before, heavy in sys.modules)
"""


def test_what_reads_requests_is_made_ready_after_the_start() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=20)
    assert (done.stdout.split(), done.stderr) == (["False", "True"], "")

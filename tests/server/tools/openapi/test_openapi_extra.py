"""Without the extra, the server says what to install, and only who uses it needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules['httpcore2'] = None\n"


OPENAPI = "from autoglm_server.tools.providers import open_provider; open_provider('a', 'openapi:a.yaml')"
HTTP = """
from autoglm_server.settings import HttpSettings
from autoglm_server.tools.providers import open_http
open_http(HttpSettings(allow=('a.example',)))
"""


@pytest.mark.parametrize("use", [OPENAPI, HTTP])
def test_what_is_missing_is_said(use: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT + use], capture_output=True, text=True, check=False)
    assert "ValueError" in done.stderr
    assert "pip install 'open-autoglm[openapi]'" in done.stderr


def test_nobody_else_needs_it() -> None:
    use = "import autoglm_server.app; from autoglm_server.tools.providers import open_http; "
    use += "from autoglm_server.settings import HttpSettings; assert open_http(HttpSettings()) == []"
    done = subprocess.run([sys.executable, "-c", WITHOUT + use], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

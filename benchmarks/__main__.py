"""``python -m benchmarks [NAME …] [--quick] [--json FILE]``: measure, and print the table."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "sdk"), str(ROOT / "server")]
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # read when grpc is first imported; this process starts others

from benchmarks.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

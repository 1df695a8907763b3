"""``python -m autoglm.cli`` is ``autoglm``."""

import sys

from autoglm.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m instbench` is the same as the `instbench` command."""

from __future__ import annotations

import sys

from instbench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

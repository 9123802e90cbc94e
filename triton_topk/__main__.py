"""`python -m triton_topk` says whether every loss is right on this machine, and how fast; for bug reports, too."""

from __future__ import annotations

import argparse
import sys

from triton_topk.check.command import main

if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m triton_topk", description=__doc__).parse_args()
    sys.exit(main())

"""What the whole suite shares."""

import os

# Kernels run in Triton's interpreter only where it was asked for before Triton was imported:
# test_interpreter.py runs these in a process of their own.
collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]

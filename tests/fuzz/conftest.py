"""The fuzz tests share these fixtures.  Triton's interpreter is asked for only to have the kernels tested."""

from __future__ import annotations

import os

from hypothesis import settings

if os.environ.get("TRITON_INTERPRET") == "1":
    from interpreter import fast_interpreter, many_rows  # noqa: F401 (fixtures, the first of every test)

    collect_ignore = ["test_any_argument.py", "test_any_call.py", "test_any_call_of_a_kernel.py"]
else:
    collect_ignore = ["test_any_call_interpreted.py"]

settings.register_profile("nightly", deadline=None)

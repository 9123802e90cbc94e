"""The functions of the native backend are compiled by numba, and what Python calls is kept in a cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

# A product and a sum may become one operation; nothing else may change.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}

jit = njit(**_OPTIONS)
inline = njit(**_OPTIONS, forceinline=True)


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, with all that it calls, and keep it if a folder for that can be written.

    numba looks for changes in the function's own file alone, so the text of all files has a part in the function's
    name, by which numba finds it.
    """
    texts = [file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))]
    function.__qualname__ += f"_{hashlib.sha256(b''.join(texts)).hexdigest()[:16]}"
    compiled = jit(function)
    with suppress(RuntimeError):  # there is no such folder
        compiled._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return compiled


class _Cache(FunctionCache):
    """A file that is damaged, as after a crash, or a disk that is full is no error: numba compiles again."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception as error:  # what is damaged decides which
            _warn("read", error)
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except Exception as error:
            _warn("keep", error)


def _warn(what: str, error: Exception) -> None:
    logging.getLogger("triton_topk").warning(
        "numba cannot %s what it has compiled: %s: %s", what, type(error).__name__, error
    )

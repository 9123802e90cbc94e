"""A Python class stands for a kernel where there is no GPU to launch it on."""

from __future__ import annotations

from typing import Any


class Kernel:
    """Stands for a kernel of Triton's, keeps what it and what it has compiled were launched with."""

    def __init__(self, kernel: Any) -> None:
        self.arg_names = kernel.arg_names
        self.asked = 0
        self.launched: list[dict[str, Any]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def run(*args: Any, **named: Any) -> Compiled:
            self.asked += 1
            given = dict(zip(self.arg_names, args, strict=False)) | named
            self.launched.append({name: given[name] for name in self.arg_names} | {"grid": grid})
            return Compiled(self)

        return run


class Compiled:
    """Stands for what Triton has compiled."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def run(*args: Any) -> None:
            given = dict(zip(self.kernel.arg_names, args, strict=True))
            self.kernel.launched.append(given | {"grid": grid})

        return run

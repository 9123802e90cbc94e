"""Kernels hold tuples of tensors: operations on their elements, and reductions over lanes that hold a tuple each."""

import linecache
from typing import Any

import triton
import triton.language as tl

# tl.reduce wants a function of a fixed number of arguments; a length between two of these is padded.
REDUCIBLE_LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20)


def lane_reduction(combine: Any) -> Any:
    """Make the kernel's function (x, LENGTH) that reduces a tuple of LENGTH tensors over axis 1.

    combine: a kernel's function of two tuples.  tl.reduce wants one of 2 LENGTH tensors instead, which is written
    for each length.
    """
    space: dict[str, Any] = {combine.__name__: combine, "tl": tl, "__name__": combine.__module__}

    def define(name: str, text: str) -> None:
        file = f"<{name} of {combine.__module__}>"
        # Triton reads a function's source where inspect finds it
        linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
        exec(compile(text, file, "exec"), space)
        space[name] = triton.jit(space[name])

    branches, name = "", combine.__name__
    for n in REDUCIBLE_LENGTHS:
        a, b = (", ".join(f"{x}{i}" for i in range(n)) for x in "ab")
        define(f"{name}_{n}", f"def {name}_{n}({a}, {b}):\n    return {name}(({a},), ({b},))\n")
        branches += f"    if LENGTH == {n}:\n        out = tl.reduce(x, 1, {name}_{n})\n"
    text = (
        f"def {name}_over_lanes(x, LENGTH: tl.constexpr):\n    out = x\n{branches}    return out\n"
    )
    define(f"{name}_over_lanes", text)
    return space[f"{name}_over_lanes"]


@triton.jit
def padded(x, value, LENGTH: tl.constexpr):
    """Append tensors of a value until the tuple is LENGTH long."""
    for _ in tl.static_range(len(x), LENGTH):
        x = x + (tl.full(x[0].shape, value, x[0].dtype),)
    return x


@triton.jit
def first(x, LENGTH: tl.constexpr):
    """Return the first LENGTH tensors of a tuple, which may be a reduction's."""
    out = ()
    for i in tl.static_range(LENGTH):
        out = out + (x[i],)
    return out


@triton.jit
def maximum(a, b):
    """Apply tl.maximum to the tensors of tuples."""
    out = ()
    for i in tl.static_range(len(a)):
        out = out + (tl.maximum(a[i], b[i]),)
    return out


@triton.jit
def where(condition, a, b):
    """Apply tl.where to the tensors of tuples."""
    out = ()
    for i in tl.static_range(len(a)):
        out = out + (tl.where(condition, a[i], b[i]),)
    return out


@triton.jit
def add_to_all(a, x):
    """Add x to each tensor of a."""
    out = ()
    for i in tl.static_range(len(a)):
        out = out + (a[i] + x,)
    return out


@triton.jit
def add_to_one(a, INDEX: tl.constexpr, x):
    """Add x to the tensor a[INDEX]."""
    return a[:INDEX] + (a[INDEX] + x,) + a[INDEX + 1 :]

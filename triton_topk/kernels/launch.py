"""The kernels are launched on the tensors of a batch."""

from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from triton_topk.batch import Batch, accumulation_dtype
from triton_topk.kernels import config as table
from triton_topk.kernels import constants
from triton_topk.kernels.kernel import loss_kernel
from triton_topk.kernels.scale import scale_kernel
from triton_topk.losses import Loss

# As many programs as fill a GPU: more would be started only to find that there is nothing to do.
_SCALE = {"BLOCK": 4096, "PROGRAMS": 1024, "num_warps": 8, "enable_fp_fusion": True}
_COMPILED_SCALE: dict[Any, Any] = {}

# A shard's summary is made, or that of all shards is at hand; None: the classes are all there are.
_OfShard = Literal["summarize", "merged"] | None


@lru_cache(maxsize=1024)
def obstacle(loss: Loss, n: int, dtype: torch.dtype, sharded: bool = False) -> str | None:
    """Return why the kernel cannot compute a loss of rows of n scores, which may be of a shard, or None."""
    formula, _ = constants.formula(loss, n, dtype, sharded)
    if formula.k > table.MAX_K:
        return f"supports k <= {table.MAX_K}, got k={formula.k}"
    if formula.degree > table.MAX_DEGREE:
        degree = formula.degree
        return f"supports k + order - 1 <= {table.MAX_DEGREE}, got k={formula.k}, order={degree + 1 - formula.k}"
    if sharded and formula.smooth and formula.k > table.MAX_K_OF_SHARDS:
        return f"supports shards of classes for k <= {table.MAX_K_OF_SHARDS}, got k={formula.k}"
    config = choose(loss, n, dtype, sharded)
    if not table.in_range(config, n, formula.top, formula.degree, dtype):
        return f"cannot hold C={n} classes for k={formula.k}"
    return None


@lru_cache(maxsize=1024)
def choose(loss: Loss, n: int, dtype: torch.dtype, sharded: bool = False) -> table.Config:
    """Choose the configuration for rows of n scores, for warps of 32."""
    formula, _ = constants.formula(loss, n, dtype, sharded)
    # Top of a shard may be that of a larger k
    degree = max(formula.degree, formula.k, table.k_of_top(formula.top))
    return table.choose(n, degree, dtype, formula.mixed)


def run(
    batch: Batch,
    loss: Loss,
    *,
    upstream: Tensor | None = None,
    losses: Tensor | None = None,
    hits: Tensor | None = None,
    gradient: Tensor | None = None,
    config: table.Config | None = None,
) -> None:
    """Fill the outputs of backends.Run, with a launch configuration other than the table's if one is given."""
    of_shard: _OfShard = None if batch.summary is None else "merged"
    _run(batch, loss, of_shard, config, upstream, losses, hits, gradient)


def summarize(batch: Batch, loss: Loss, *, config: table.Config | None = None) -> None:
    """Fill the summary of the batch, which is contiguous, but for the place of the label, which is 0."""
    out = batch.summary
    hits = None if loss.hits is None else out
    _run(Batch(batch.scores, batch.labels), loss, "summarize", config, losses=out, hits=hits)


def _run(
    batch: Batch,
    loss: Loss,
    of_shard: _OfShard,
    config: table.Config | None,
    upstream: Tensor | None = None,
    losses: Tensor | None = None,
    hits: Tensor | None = None,
    gradient: Tensor | None = None,
) -> None:
    """Launch what has these arguments of the kernel."""
    n_rows, n = batch.scores.shape
    if n_rows == 0:
        return
    n_counted = 0
    any_number = upstream if losses is None else losses
    if batch.uncounted is not None and any_number is not None:
        # the kernel counts, and reads no normalizer
        n_counted, batch = n_rows, batch._replace(normalizer=any_number, uncounted=None)
    scores, labels, weight, sample_weight, margins, normalizer, summaries = batch.tensors
    if scores.stride(1) != 1:
        scores = scores.contiguous()
    stride = scores.stride(0)
    vector = table.vector_of(n, scores.dtype)
    aligned = stride % vector == 0 and scores.data_ptr() % (vector * scores.element_size()) == 0
    plan = _plan(loss, n, scores.dtype, aligned, config, of_shard)
    n_programs = _ceil_div(n_rows, plan.rows)
    labels = labels.contiguous()
    summaries = None if summaries is None else summaries.contiguous()
    numbers = (
        n_rows,
        n,
        stride,
        *((0, 0) if margins is None else margins.stride()),
        0 if upstream is None else upstream.stride(0),
        loss.ignore_index,
        n_counted,
        *plan.numbers,
    )
    if plan.first is not None:
        dtype = accumulation_dtype(scores.dtype)
        summaries = scores.new_empty((n_rows, plan.parts, plan.summary), dtype=dtype)
        tensors = (scores, labels, *[None] * 8, summaries)
        _launch(loss_kernel, n_programs * plan.parts, tensors, numbers, *plan.first)
    if gradient is not None:
        n_programs *= plan.parts
    weight = None if weight is None else weight.contiguous()
    sample_weight = None if sample_weight is None else sample_weight.contiguous()
    tensors = (
        scores,
        labels,
        weight,
        sample_weight,
        margins,
        normalizer,
        upstream,
        losses,
        hits,
        gradient,
        summaries,
    )
    _launch(loss_kernel, n_programs, tensors, numbers, *plan.last)


def _launch(
    kernel: Any,
    n_programs: int,
    tensors: tuple[Tensor | None, ...],
    numbers: tuple[float, ...],
    constants: dict[str, Any],
    compiled: dict[Any, Any],
) -> None:
    """Launch kernel[n_programs,](*tensors, *numbers, **constants).

    Each time Triton looks at every argument to find what it has compiled for arguments of the kind, which takes longer
    than everything else here.  What it found is therefore kept in `compiled`, which belongs to the constants, by all
    that it looks at: the tensors' device, dtype and alignment.  No kernel is compiled for the value of a number.
    """
    first = tensors[0]
    assert first is not None
    kind = (
        first.device,
        *[t if t is None else (t.dtype, t.data_ptr() % 16 == 0) for t in tensors],
    )
    grid = (n_programs, 1, 1)
    with torch.cuda.device_of(first):
        if kind in compiled:
            found, values = compiled[kind]
            found[grid](*tensors, *numbers, *values)
            return
        found = kernel[grid](*tensors, *numbers, **constants)
    # The interpreter compiles nothing.  For AMD's Triton looks at the sizes of storages, too.
    if found is not None and not torch.version.hip:
        names = kernel.arg_names[len(tensors) + len(numbers) :]
        compiled[kind] = found, [constants[name] for name in names]


class _Plan(NamedTuple):
    """A plan has the launches for rows of one kind: constants of the kernel, and a place for what is compiled."""

    rows: int  # of a program
    parts: int  # of a row
    summary: int  # numbers of a part's summary
    numbers: constants.Numbers
    first: tuple[dict[str, Any], dict[Any, Any]] | None
    last: tuple[dict[str, Any], dict[Any, Any]]


@lru_cache(maxsize=1024)
def _plan(
    loss: Loss,
    n: int,
    dtype: torch.dtype,
    aligned: bool,
    config: table.Config | None,
    of_shard: _OfShard = None,
) -> _Plan:
    """Plan the launches for rows of n scores.  aligned: whether all of them start at multiples of the vector."""
    if config is None:
        config = choose(loss, n, dtype, of_shard is not None)
        if torch.version.hip:
            config = table.for_waves_of_64(config)
    formula, numbers = constants.formula(loss, n, dtype, of_shard is not None)
    layout = constants.layout(config, formula, n, dtype, aligned)

    def launch(layout: constants.Layout) -> tuple[dict[str, Any], dict[Any, Any]]:
        groups = {"LOSS": constants.Constants(formula), "LAYOUT": constants.Constants(layout)}
        options: dict[str, Any] = {"num_warps": config.warps, "enable_fp_fusion": True}
        if config.registers is not None:
            options["maxnreg"] = config.registers
        return groups | options, {}

    first, last = None, layout
    if of_shard == "merged":
        last = replace(layout, merged=True)
    elif config.parts > 1:
        first, last = launch(layout), replace(layout, stream=True, finish=True)
    if of_shard == "summarize":
        last = replace(last, summarize=True)
    return _Plan(config.rows, config.parts, layout.summary, numbers, first, launch(last))


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """Multiply the gradient, which is contiguous, by a number."""
    size = gradient.numel()
    if size:
        n_programs = min(_ceil_div(size, _SCALE["BLOCK"]), _SCALE["PROGRAMS"])
        _launch(scale_kernel, n_programs, (gradient, factor), (size,), _SCALE, _COMPILED_SCALE)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)

"""The scores of a linear layer, and their gradient, exist for a chunk of rows at a time.

The scores of a chunk X are X W^T + b; a backend computes their losses and their gradient G; G W is the gradient of X,
and G^T X the chunk's part in that of W, which for half precision is accumulated in float32.  Where the loss is reduced
to a number the forward does all of it, in three products, and the backward multiplies by the incoming number.  The
backward computes the scores again, a fourth product, for reduction "none", for float16 whose small gradients only a
scaled loss keeps from flushing to zero, for a second backward, and where saved tensors are packed, as by activation
checkpointing.  With create_graph=True it computes with all rows at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad

from triton_topk import autograd, backends, ops
from triton_topk.batch import Batch, accumulation_dtype
from triton_topk.losses import LOSSES, Loss

# The scores of a chunk and their gradient may take 1 / 8 of the memory of input and weight, or so many bytes if that is
# more.  With much less, reading and writing the weight's gradient for each chunk takes longer than computing it.
_SHARE, _LEAST_BYTES = 8, 64 * 2**20
_TILE = 16  # rows that matrices are multiplied in

_TENSORS = (
    "Tensor input, Tensor linear_weight, Tensor? linear_bias, "
    "Tensor labels, Tensor? weight, Tensor? sample_weight, Tensor? margins, Tensor? normalizer, "
    "Tensor? summary, Tensor? upstream"
)
_ARGUMENTS = f"{_TENSORS}, ScalarType dtype, SymInt? chunk_rows, bool[] wanted"
_N_TENSORS, _N_ARGUMENTS = (len(x.split(",")) for x in (_TENSORS, _ARGUMENTS))

Results = tuple[Tensor | None, ...]


class Layer(NamedTuple):
    """A linear layer and its input stand for the scores that they make, (N, C) or (C,)."""

    input: Tensor  # (N, D) or (D,)
    weight: Tensor  # (C, D)
    bias: Tensor | None  # (C,)
    dtype: torch.dtype  # of the scores, which autocast chooses
    chunk_rows: int | None

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self[:3]

    def like_scores(self) -> Tensor:
        """Return one number in the shape of the scores."""
        shape = (*self.input.shape[:-1], self.weight.shape[0])
        return self.input.new_empty((), dtype=self.dtype).expand(shape)

    def cast(self) -> Layer:
        """Return the layer with tensors in the dtype of the scores."""
        bias = None if self.bias is None else self.bias.to(self.dtype)
        x, weight = self.input.to(self.dtype), self.weight.to(self.dtype)
        return self._replace(input=x, weight=weight, bias=bias)

    def with_masked_class(self) -> Layer:
        """Return the layer with one more class, which is masked."""
        bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
        bias = F.pad(bias, (0, 1), value=-math.inf)
        return self._replace(weight=F.pad(self.weight, (0, 0, 0, 1)), bias=bias)

    def function(
        self, batch: Batch, loss: Loss, *, summed: bool, recorded: bool, plain: bool
    ) -> tuple[Callable[..., Results], tuple[Any, ...]]:
        """Return the function that serves this call, and its arguments, as autograd.function does for scores."""
        observed = not recorded and autograd.is_observed()
        keeps = summed and self.dtype != torch.float16 and not observed and torch.is_grad_enabled()
        wanted = [keeps and t is not None and t.requires_grad for t in self.tensors]
        return _call if recorded else _call_eagerly, (loss, batch, self.of_rows(), wanted)

    def summarize(self, loss: Loss, batch: Batch, recorded: bool, plain: bool) -> Tensor:
        """Return the summary of a shard, for which the scores are computed once more."""
        call = _call if recorded else _call_eagerly
        summary: Tensor = call(loss, batch, self.of_rows(), [False] * 3, suffix="_summary")
        return summary

    def of_rows(self) -> Layer:
        """Return the layer with the input as (N, D)."""
        return self._replace(input=torch.atleast_2d(self.input))

    def rows_of_chunk(self, bytes_of_score: int) -> int:
        """Return the number of rows of a chunk, each of whose scores takes so many bytes."""
        (n_rows, d), n_classes = self.input.shape, self.weight.shape[0]
        rows = self.chunk_rows
        if rows is None:
            of_layer = (n_rows + n_classes) * d * self.dtype.itemsize
            rows = max(_LEAST_BYTES, of_layer // _SHARE) // (n_classes * bytes_of_score)
            rows = rows // _TILE * _TILE or rows
        return max(1, min(rows, n_rows))


def _call(
    loss: Loss,
    batch: Batch,
    layer: Layer,
    wanted: Sequence[bool],
    upstream: Tensor | None = None,
    suffix: str = "",
) -> Any:
    """Call an operator of the loss."""
    operator = getattr(torch.ops.triton_topk, f"linear_{loss.name}{suffix}")
    return operator(*layer.tensors, *batch.tensors[1:], upstream, *layer[3:], wanted, *loss.values)


def _call_eagerly(*args: Any, **options: Any) -> Any:
    # see ops._call_eagerly
    with forward_ad._set_fwd_grad_enabled(False):
        return _call(*args, **options)


# The functions that the operators compute.


def _compute(
    loss: Loss, batch: Batch, layer: Layer, wanted: Sequence[bool], upstream: Tensor | None
) -> Results:
    """Return the losses (N,), the hits, and the wanted ones of the gradients of input, weight and bias.

    The gradients are those of sum_i losses_i upstream_i.  Without upstream the losses are their sum if it has one.
    """
    ops.check(loss, batch, upstream)
    batch = batch.looked_at(loss.ignore_index)
    backend = backends.choose(batch, loss)
    losses, hits = ops.new_losses(loss, batch.scores)
    of_input, of_weight, of_bias = sums = [
        # of the rows of the input, each is written; of the others, each is a sum of all chunks
        torch.zeros(t.shape, dtype=accumulation_dtype(t.dtype) if i else t.dtype, device=t.device)
        if t is not None and wanted[i]
        else None
        for i, t in enumerate(layer.tensors)
    ]
    n_arrays = 2 if any(wanted) and not backend.in_place else 1
    cast = layer.cast()
    for rows, x, arrays in _chunks(cast, n_arrays):
        scores, gradient = arrays[0], arrays[-1]
        backend.run(
            batch.part(rows, scores),
            loss,
            upstream=None if upstream is None else upstream[rows],
            losses=losses[rows],
            hits=None if hits is None else hits[rows],
            gradient=gradient if any(wanted) else None,
        )
        # autocast, which a backward may be called under, changes no product with an `out` or in place
        if of_input is not None:
            of_input[rows] = torch.mm(gradient, cast.weight, out=torch.empty_like(x))
        if of_weight is not None:
            _add_product(of_weight, gradient, x)
        if of_bias is not None:
            of_bias += gradient.sum(0, dtype=of_bias.dtype)
    return _total(losses, wanted, upstream), hits, *_as_gradients(sums, layer)


def _summarize(loss: Loss, batch: Batch, layer: Layer, *_: Any) -> Tensor:
    """Return the summary of a shard."""
    assert batch.summary is not None
    out = torch.empty_like(batch.summary)
    for rows, *__, arrays in _chunks(layer.cast(), 1):
        out[:, rows] = ops.summary_of(loss, batch.part(rows, arrays[0]))
    return out


def _chunks(layer: Layer, n_arrays: int) -> Iterator[tuple[slice, Tensor, list[Tensor]]]:
    """Return the rows of each chunk, their input, and arrays (rows, C), the first of which has their scores."""
    x, weight, bias = layer.tensors
    rows = layer.rows_of_chunk(n_arrays * x.itemsize)
    arrays = [x.new_empty((rows, weight.shape[0])) for _ in range(n_arrays)]
    for first in range(0, x.shape[0], rows):
        some = x[first : first + rows]
        parts = [array[: some.shape[0]] for array in arrays]
        if bias is None:
            torch.mm(some, weight.t(), out=parts[0])
        else:
            torch.addmm(bias, some, weight.t(), out=parts[0])
        yield slice(first, first + rows), some, parts


def _add_product(total: Tensor, gradient: Tensor, x: Tensor) -> None:
    """Add G^T X, in the dtype of the total."""
    if total.dtype == x.dtype:
        total.addmm_(gradient.t(), x)
    elif x.is_cuda:
        torch.addmm(total, gradient.t(), x, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(gradient.to(total.dtype).t(), x.to(total.dtype))


def _total(losses: Tensor, wanted: Sequence[bool], upstream: Tensor | None) -> Tensor:
    return losses.sum() if any(wanted) and upstream is None else losses


def _as_gradients(sums: Sequence[Tensor | None], layer: Layer) -> list[Tensor | None]:
    """Return the gradients, where there are any, in the dtypes of input, weight and bias."""
    return [
        None if g is None or t is None else g.to(t.dtype)
        for g, t in zip(sums, layer.tensors, strict=True)
    ]


def _new_results(
    loss: Loss, batch: Batch, layer: Layer, wanted: Sequence[bool], upstream: Tensor | None
) -> Results:
    """Return the results without their values."""
    losses, hits = ops.new_losses(loss, batch.scores)
    gradients = [
        t.new_empty(t.shape) if t is not None and w else None
        for t, w in zip(layer.tensors, wanted, strict=True)
    ]
    return _total(losses, wanted, upstream), hits, *gradients


def _new_summary(_: Loss, batch: Batch, *__: Any) -> Tensor:
    return torch.empty_like(batch.summary)  # type: ignore[arg-type]


def _unpacked(
    tensors: Sequence[Any], dtype: torch.dtype, chunk_rows: int | None
) -> tuple[Layer, Batch]:
    """Return the layer and the batch of the tensors of an operator, but the upstream gradient."""
    x, linear_weight, bias, labels, *others = tensors
    layer = Layer(x, linear_weight, bias, dtype, chunk_rows)
    return layer, Batch(layer.like_scores(), labels, *others)


# Their derivative.


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...], loss: type[Loss]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    # else the backward is given a zero for each element of these
    ctx.set_materialize_grads(False)
    *tensors, _ = inputs[:_N_TENSORS]
    ctx.save_for_backward(*tensors)
    *ctx.options, wanted = inputs[_N_TENSORS:_N_ARGUMENTS]
    ctx.loss = replace(loss.of(inputs[_N_ARGUMENTS:]), hits=None)
    # detached: as an output it would hold on to the graph that holds on to it
    kept = [g.detach() if w else None for g, w in zip(output[2:], wanted, strict=True)]
    ctx.gradients = kept if any(wanted) else None


def _differentiate(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    """Return the gradients of an operator's arguments, of which all but the first three have none."""
    if upstream is None:
        return (None,) * len(ctx.needs_input_grad)
    gradients, wanted = ctx.gradients, ctx.needs_input_grad[:3]
    constant = not torch.is_grad_enabled() and forward_ad._current_level < 0
    if gradients is None or not constant:
        layer, batch = _unpacked(ctx.saved_tensors, *ctx.options)
        upstream = upstream.expand(batch.labels.shape)
        if constant and not is_legacy_batchedtensor(upstream):
            _, _, *gradients = _call_eagerly(ctx.loss, batch, layer, wanted, upstream)
        else:
            x, weight, bias = layer.cast().tensors
            batch = batch._replace(scores=F.linear(x, weight, bias))
            of_scores = autograd.gradient_of(ctx.loss, batch, upstream, constant)
            products = of_scores @ weight, of_scores.t() @ x, of_scores.sum(0)
            gradients = _as_gradients(products, layer)
    elif ops.is_plain((upstream, *gradients)):
        # They are given away, so a second backward has to compute its own.
        ctx.gradients = None
        for g in gradients:
            if g is not None:
                backends.scale_(g, upstream)
    else:
        gradients = [None if g is None else (g * upstream).to(g.dtype) for g in gradients]
    gradients = [g if w else None for g, w in zip(gradients, wanted, strict=True)]
    return *gradients, *[None] * (len(ctx.needs_input_grad) - 3)


def _register(library: torch.library.Library, loss: type[Loss]) -> None:
    """Register the operator of a loss, on a layer and what a batch has beside the scores."""
    name = f"linear_{loss.name}"

    def of_arguments(function: Callable[..., Any], loss: Loss, *args: Any) -> Any:
        *tensors, upstream, dtype, chunk_rows, wanted = args
        layer, batch = _unpacked(tensors, dtype, chunk_rows)
        return function(loss, batch, layer, wanted, upstream)

    results = ", ".join(["Tensor"] * 5)
    for operator, returns, compute, like in (
        (name, f"({results})", _compute, _new_results),
        (f"{name}_summary", "Tensor", _summarize, _new_summary),
    ):
        library.define(f"{operator}({_ARGUMENTS}, {loss.schema()}) -> {returns}")
        for f, key in ((compute, "CompositeExplicitAutograd"), (like, "Meta")):
            computed = ops.as_operator(partial(of_arguments, f), loss, _N_ARGUMENTS)
            library.impl(operator, computed, key)
    torch.library.register_autograd(
        f"triton_topk::{name}", _differentiate, setup_context=partial(_save, loss=loss), lib=library
    )


# as in ops.py
if not hasattr(torch.ops.triton_topk, "linear_smooth_svm"):
    _library = torch.library.Library("triton_topk", "FRAGMENT")
    for _loss in LOSSES.values():
        _register(_library, _loss)

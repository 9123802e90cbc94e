"""The sum of the weights of the labels: the divisor of a mean."""

import triton
import triton.language as tl


@triton.jit(
    do_not_specialize=["n_rows", "n", "ignore_index"],
    do_not_specialize_on_alignment=["labels", "weight", "sums"],
)
def weights_kernel(
    labels,
    weight,
    sums,
    n_rows: "i64",
    n: "i32",
    ignore_index: "i64",
    SHARE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """sums: of SHARE labels each; an ignored one has weight 0, every other one without `weight` 1."""
    first = tl.program_id(0).to(tl.int64) * SHARE
    end = tl.minimum(first + SHARE, n_rows)
    total = tl.zeros([BLOCK], sums.dtype.element_ty)
    for start in range(first, end, BLOCK):
        row = start + tl.arange(0, BLOCK)
        inside = row < end
        label = tl.load(labels + row, mask=inside, other=0).to(tl.int64)
        counted = inside & (label != ignore_index)
        if weight is None:
            total += counted.to(total.dtype)
        else:
            known = counted & (label >= 0) & (label < n)
            total += tl.load(weight + label, mask=known, other=0.0).to(total.dtype)
    tl.store(sums + tl.program_id(0), tl.sum(total, axis=0))

"""A stored gradient is scaled by the number that autograd sends back."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["size"], do_not_specialize_on_alignment=["factor"])
def scale_kernel(gradient, factor, size: "i64", BLOCK: tl.constexpr, PROGRAMS: tl.constexpr):
    """Multiply the gradient in place; a factor of 1 moves no data, and the host need not know it."""
    f = tl.load(factor)
    if f != 1.0:
        first = tl.program_id(0).to(tl.int64) * BLOCK
        for start in range(first, size, PROGRAMS * BLOCK):
            pointers = gradient + start + tl.arange(0, BLOCK)
            # only where nothing is masked is memory moved in vectors
            if start + BLOCK <= size:
                g = tl.load(pointers)
                tl.store(pointers, (g.to(f.dtype) * f).to(g.dtype))
            else:
                inside = tl.arange(0, BLOCK) < size - start
                g = tl.load(pointers, mask=inside)
                tl.store(pointers, (g.to(f.dtype) * f).to(g.dtype), mask=inside)

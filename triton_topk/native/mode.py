"""Products of small weights are 0, not denormal numbers, which take many times as long.

On x86 this is a bit of the processor's control word; on other machines denormal numbers are left alone.
"""

import platform

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_DENORMALS_ARE_ZERO, _FLUSH_TO_ZERO = 0x0040, 0x8000
_WORD = ir.IntType(32)


def _with_control_word(builder, instruction, slot):
    pointer = ir.IntType(8).as_pointer()
    function = ir.FunctionType(ir.VoidType(), [pointer])
    call = builder.module.declare_intrinsic(f"llvm.x86.sse.{instruction}", fnty=function)
    builder.call(call, [builder.bitcast(slot, pointer)])


def _mode(bits):
    """Return a builder that sets the mode of this thread and returns the one before."""

    def build(context, builder, sig, args):
        if not _X86:
            return ir.Constant(_WORD, 0)
        slot = builder.alloca(_WORD)
        _with_control_word(builder, "stmxcsr", slot)
        before = builder.load(slot)
        # not what the caller has set, which other threads may not have
        others = ir.Constant(_WORD, ~(_DENORMALS_ARE_ZERO | _FLUSH_TO_ZERO))
        builder.store(builder.or_(builder.and_(before, others), ir.Constant(_WORD, bits)), slot)
        _with_control_word(builder, "ldmxcsr", slot)
        return before

    return build


@intrinsic
def flush_denormals(typing):
    """Have denormal results be 0 in this thread; return the mode before."""
    return types.uint32(), _mode(_FLUSH_TO_ZERO)


@intrinsic
def keep_denormals(typing):
    """Have denormal results be what they are in this thread; return the mode before."""
    return types.uint32(), _mode(0)


@intrinsic
def restore(typing, mode):
    """Set the mode of this thread to one that was before."""

    def build(context, builder, sig, args):
        if _X86:
            slot = builder.alloca(_WORD)
            builder.store(args[0], slot)
            _with_control_word(builder, "ldmxcsr", slot)
        return context.get_dummy_value()

    return types.void(types.uint32), build

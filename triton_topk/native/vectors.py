"""numba gets vectors: types and functions that become one machine instruction, or a few, on any processor.

A vector has a fixed number of elements of one type.  `load(pointer, i, n)` returns the n elements from pointer[i] on, n
a constant, and `store(pointer, i, vector)` puts them back.  +, -, *, / and comparisons are element by element.
"""

import math
import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model


class Vector(types.Type):
    def __init__(self, dtype, size):
        self.dtype, self.size = dtype, size
        super().__init__(f"vector({dtype} x {size})")

    def of(self, dtype):
        """Return the type of a vector of as many elements of another type."""
        return Vector(dtype, self.size)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        bit = vector.dtype is types.boolean
        element = ir.IntType(1) if bit else manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.size))


def _define(function, build, result):
    """Define a function of Python's module operator for two vectors of a type."""

    @infer_global(function)
    class Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and args[0] == args[1] and isinstance(args[0], Vector):
                return signature(result(args[0]), *args)
            return None

    lower_builtin(function, Vector, Vector)(
        lambda context, builder, sig, args: build(builder, *args)
    )


def _compare(sign):
    return lambda builder, a, b: builder.fcmp_ordered(sign, a, b)


for _name in ("add", "sub", "mul", "truediv"):
    _build = getattr(ir.IRBuilder, f"f{_name.removeprefix('true')}")
    for _function in (getattr(operator, _name), getattr(operator, f"i{_name}")):
        _define(_function, _build, lambda vector: vector)
for _name, _sign in (("lt", "<"), ("gt", ">"), ("ge", ">="), ("eq", "==")):
    _define(getattr(operator, _name), _compare(_sign), lambda vector: vector.of(types.boolean))


@intrinsic
def pointer_to(typing, address, like):
    """Return the pointer to numbers of the type of `like` at an address."""
    pointer = types.CPointer(like)

    def build(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(types.int64, like), build


def _address(builder, pointer, i, kind):
    return builder.bitcast(builder.gep(pointer, [i]), kind.as_pointer())


@intrinsic(prefer_literal=True)
def load(typing, pointer, i, n):
    vector = Vector(pointer.dtype, n.literal_value)

    def build(context, builder, sig, args):
        at = _address(builder, args[0], args[1], context.get_value_type(vector))
        return builder.load(at, align=pointer.dtype.bitwidth // 8)

    return vector(pointer, types.int64, n), build


@intrinsic
def store(typing, pointer, i, vector):
    def build(context, builder, sig, args):
        at = _address(builder, args[0], args[1], args[2].type)
        builder.store(args[2], at, align=pointer.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, vector), build


@intrinsic
def full(typing, number, like):
    """Return a vector of the type of another, with the number everywhere."""

    def build(context, builder, sig, args):
        x = context.cast(builder, args[0], number, like.dtype)
        undefined = ir.Constant(args[1].type, ir.Undefined)
        one = builder.insert_element(undefined, x, ir.Constant(ir.IntType(32), 0))
        return _pick(builder, one, [0] * like.size)

    return like(number, like), build


def picks(*indices):
    """Return the function that picks the elements of these indices of a vector."""

    @intrinsic
    def pick(typing, vector):
        def build(context, builder, sig, args):
            return _pick(builder, args[0], indices)

        return Vector(vector.dtype, len(indices))(vector), build

    return pick


def _pick(builder, vector, indices):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(indices)), list(indices))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


@intrinsic
def where(typing, mask, a, b):
    """Return the elements of a where the mask is true, else those of b."""
    return a(mask, a, b), lambda context, builder, sig, args: builder.select(*args)


@intrinsic
def bits(typing, mask):
    """Return a whole number whose bits are the elements of a mask."""

    def build(context, builder, sig, args):
        return builder.zext(builder.bitcast(args[0], ir.IntType(mask.size)), ir.IntType(64))

    return types.int64(mask), build


@intrinsic
def lowest_bit(typing, number):
    """Return the place of the lowest bit that is set, of a number that is not 0."""

    def build(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build


@intrinsic
def rint(typing, vector):
    """Round to whole numbers."""

    def build(context, builder, sig, args):
        function = ir.FunctionType(args[0].type, [args[0].type])
        name = f"llvm.rint.v{vector.size}f{vector.dtype.bitwidth}"
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)

    return vector(vector), build


@intrinsic
def power_of_two(typing, exponents):
    """Return 2^i of whole numbers i, by way of the bits: 0 for the exponent below that of normal numbers."""
    size, mantissa, bias = (32, 23, 127) if exponents.dtype == types.float32 else (64, 52, 1023)

    def build(context, builder, sig, args):
        integers = ir.VectorType(ir.IntType(size), exponents.size)
        biased = builder.add(builder.fptosi(args[0], integers), _all(integers, bias))
        return builder.bitcast(builder.shl(biased, _all(integers, mantissa)), args[0].type)

    return exponents(exponents), build


@intrinsic
def power_of_fraction(typing, f):
    """Return 2^f, |f| <= 1/2, by its series: to 1e-8 in float32, 1e-17 in float64."""
    terms = 8 if f.dtype == types.float32 else 14

    def build(context, builder, sig, args):
        total = None
        for m in reversed(range(terms)):
            c = _all(args[0].type, math.log(2) ** m / math.factorial(m))
            total = c if total is None else builder.fadd(builder.fmul(total, args[0]), c)
        return total

    return f(f), build


def _all(kind, number):
    return ir.Constant(kind, [number] * kind.count)


@intrinsic
def least_exponent(typing, vector):
    """Return the exponent that the bits of 0 have, of the type of a vector's elements."""
    exponent = -127.0 if vector.dtype == types.float32 else -1023.0

    def build(context, builder, sig, args):
        return context.get_constant(types.float64, exponent)

    return types.float64(vector), build


@intrinsic
def convert(typing, vector, pointer):
    """Return the elements in the type that a pointer points to; uint16 are the bits of bfloat16, int16 of float16."""
    source, target = vector.dtype, pointer.dtype

    def build(context, builder, sig, args):
        if source == target:
            return args[0]
        narrow = _NARROW.get(target)
        if narrow is None:
            return _resize(
                builder, _widen(builder, args[0], source), context.get_value_type(vector.of(target))
            )
        return narrow(builder, _resize(builder, args[0], _of(ir.FloatType(), args[0])))

    return vector.of(target)(vector, pointer), build


def _of(element, vector):
    """Return the type of as many elements as a vector has."""
    return ir.VectorType(element, vector.type.count)


def _resize(builder, x, to):
    """Convert float16, float32 and float64."""
    sizes = {"half": 2, "float": 4, "double": 8}
    had, has = sizes[str(x.type.element)], sizes[str(to.element)]
    return x if had == has else (builder.fpext if had < has else builder.fptrunc)(x, to)


def _widen(builder, x, source):
    if source == types.uint16:
        words = _of(ir.IntType(32), x)
        x = builder.shl(builder.zext(x, words), _all(words, 16))
        return builder.bitcast(x, _of(ir.FloatType(), x))
    return builder.bitcast(x, _of(ir.HalfType(), x)) if source == types.int16 else x


def _to_float16(builder, x):
    half = builder.fptrunc(x, _of(ir.HalfType(), x))
    return builder.bitcast(half, _of(ir.IntType(16), x))


def _to_bfloat16(builder, x):
    """Round to the nearest, in the middle to even; NaN stays NaN."""
    words, halves = _of(ir.IntType(32), x), _of(ir.IntType(16), x)
    word = builder.bitcast(x, words)
    odd = builder.and_(builder.lshr(word, _all(words, 16)), _all(words, 1))
    rounded = builder.add(builder.add(word, _all(words, 0x7FFF)), odd)
    upper = builder.trunc(builder.lshr(rounded, _all(words, 16)), halves)
    return builder.select(builder.fcmp_unordered("uno", x, x), _all(halves, 0x7FC0), upper)


_NARROW = {types.uint16: _to_bfloat16, types.int16: _to_float16}

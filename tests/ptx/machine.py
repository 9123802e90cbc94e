"""The threads of all programs of a launch, at once: divergence, barriers, shuffles, memory.

An instruction is done for all threads that stand at it, as an operation on arrays.  Of threads that have parted, those
go first whose next instruction comes first in the text, so that they meet again where the ways do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tests.ptx.arithmetic import OPERATIONS, S64, TYPES, U32, U64, Array
from tests.ptx.listing import Instruction, Listing
from tests.ptx.memory import Fault, Memory, Threads

# What an instruction does for the threads of a mask; and the places of their data in a memory, piece by piece.
Step = Callable[[Array], None]
Places = Callable[[Array], list[Array]]
_WARP = 32
_REDUCTIONS: dict[str, Any] = {"min": np.minimum, "max": np.maximum, "add": np.add}
_NOTHING = 0x7FFFFFFF7FFFFFFF  # in a register that a thread has not written: NaN of every width, a wild address


class Machine:
    def __init__(self, listing: Listing, bits: list[int], grid: int, memory: Memory, shared: int):
        """bits: the parameters'.  grid: how many programs.  shared: how many bytes each has."""
        n = grid * listing.threads
        self._listing = listing
        self._thread = np.arange(n)
        program = self._thread // listing.threads
        own, nothing = Memory([shared] * grid), np.zeros(shared, np.uint8)
        starts = np.array([own.allocate(nothing, allowed=True).start for _ in range(grid)])
        # each with where its addresses begin
        self._memories = {"global": (memory, 0), "shared": (own, starts[program])}
        self._now = 1
        self._barrier, self._warp_barrier = np.zeros((2, n), np.int64)
        names = ("%tid.x", "%ctaid.x", "%nctaid.x", "global_smem")
        constants = (self._thread % listing.threads, program, grid, 0)
        self._values = {name: np.full(n, x, U32) for name, x in zip(names, constants, strict=True)}
        self._arguments = dict(zip(listing.parameters, bits, strict=True))
        self._steps = [self._decode(x) for x in listing.instructions]

    @np.errstate(all="ignore")
    def run(self) -> None:
        """Fault for what a kernel must not do."""
        code, labels, end = self._listing.instructions, self._listing.labels, len(self._steps)
        # where threads may part, or meet
        borders = {end, *labels.values()}
        borders |= {i + 1 for i, x in enumerate(code) if x.opcode[:3] in ("bra", "ret", "bar")}
        at, waiting = np.zeros(len(self._thread), np.int64), np.zeros(len(self._thread), bool)
        while (at < end).any():
            ready = ~waiting & (at < end)
            if not ready.any():
                self._release(at, waiting)
                continue
            i = int(at[ready].min())
            active = ready & (at == i)
            while True:
                x = code[i]
                taken = active & (x.guard is None or self._values[x.guard] == x.expected)
                if taken.any():
                    try:
                        self._steps[i](taken)
                    except Fault as fault:
                        raise type(fault)(f"{fault}: {x}") from fault
                i += 1
                if i in borders:
                    break
            at[active] = i
            if x.opcode.startswith("bra"):
                at[taken] = labels[x.operands[0]]
            elif x.opcode == "ret":
                at[taken] = end
            elif x.opcode == "bar.sync":
                waiting |= taken

    def _release(self, at: Array, waiting: Array) -> None:
        """The result has the threads that wait at a barrier, where all others of their programs do."""
        of_programs = at.reshape(-1, self._listing.threads)
        if (of_programs != of_programs[:, :1]).any():
            raise Fault("threads of a program do not wait at one barrier")
        self._now += 1
        self._barrier[waiting] = self._warp_barrier[waiting] = self._now
        waiting[:] = False

    def _decode(self, x: Instruction) -> Step:
        name, *modifiers = x.opcode.split(".")
        if x.guard is not None:
            self._register(x.guard)
        if x.opcode in OPERATIONS and "{" not in x.operands[0] + x.operands[1]:
            return self._compute(x)
        match name, *modifiers:
            case ("bra" | "ret",) | ("bra", "uni"):
                return lambda mask: None
            case "bar", "sync" if x.operands == ("0",):
                return self._together
            case "bar", "warp", "sync" if x.operands == ("-1",):
                return self._synchronise
            case "mov", kind:
                return self._move(x, TYPES[kind])
            case "ld", "param", "b8" | "b16" | "b32" | "b64":
                bits = 8 * TYPES[modifiers[1]].itemsize
                value = np.array([self._arguments[x.operands[1].strip("[]")] % 2**bits], U64)
                return partial(self._writer(x.operands[0]), value)
            case "ld" | "st", "global" | "shared", *vector, "b8" | "b16" | "b32" | "b64" if (
                vector in ([], ["v2"], ["v4"])
            ):
                kind, n = TYPES[modifiers[-1]], int(vector[0][1] if vector else 1)
                return self._access(x, modifiers[0], kind, n, n * kind.itemsize, self._one_place)
            case "ldmatrix" | "stmatrix", "sync", "aligned", "m8n8", n, *trans, "shared", "b16" if (
                n in ("x1", "x2", "x4") and trans in ([], ["trans"])
            ):
                return self._access(x, "shared", U32, int(n[1]), 2, partial(self._halves, trans))
            case "shfl", "sync", "bfly" | "idx", "b32" if x.operands[3:] == ("31", "-1"):
                return self._shuffle(x)
            case "redux", "sync", operation, "s32" | "u32" if operation in _REDUCTIONS:
                return self._reduce(x, _REDUCTIONS[operation], TYPES[modifiers[-1]])
        raise NotImplementedError(str(x))

    # Operands.

    def _register(self, operand: str) -> Any:
        """Its type.  No thread finds a number in what it has not written."""
        if operand not in self._values:
            name = operand.rstrip("0123456789")
            if name not in self._listing.registers:
                raise NotImplementedError(f"no register: {operand}")
            kind = TYPES[self._listing.registers[name]]
            nothing = kind.type(_NOTHING % 256**kind.itemsize)
            self._values[operand] = np.broadcast_to(nothing, self._thread.shape)
        return self._values[operand].dtype

    def _reader(self, operand: str, kind: Any) -> Callable[[], Array]:
        values, unsigned = self._values, np.dtype(f"u{kind.itemsize}")
        if operand[0] in "0123456789-":
            base = 16 if operand[:2] in ("0f", "0d") else 0
            bits = int(operand[2:] if base else operand.rstrip("U"), base)
            constant = np.array([bits % 256**kind.itemsize], unsigned)
            return lambda: constant > 0 if kind == np.bool_ else constant.view(kind)
        if self._register(operand).itemsize < kind.itemsize:
            raise NotImplementedError(f"{operand} as {kind}")
        return lambda: values[operand].astype(unsigned, copy=False).view(kind)

    def _writer(self, operand: str) -> Callable[[Array, Array], None]:
        """Into a register, as wide as it is, for the threads of a mask."""
        if operand == "_":
            return lambda x, mask: None
        kind, values = self._register(operand), self._values

        def write(x: Array, mask: Array) -> None:
            if x.dtype.kind == "f":
                x = x.view(f"u{x.dtype.itemsize}")
            x = np.broadcast_to(x.astype(kind, copy=False), mask.shape)
            values[operand] = x if mask.all() else np.where(mask, x, values[operand])

        return write

    def _columns(self, operand: str, kind: Any) -> Callable[[], Array]:
        """The bytes of {a, b} or a, one after the other: [thread, byte]"""
        reads, n = [self._reader(x, kind) for x in _listed(operand)], len(self._thread)
        return lambda: np.stack([np.broadcast_to(read(), n) for read in reads], 1).view("u1")

    def _column_writer(self, operand: str) -> Callable[[Array, Array], None]:
        writes = [self._writer(name) for name in _listed(operand)]

        def write(data: Array, mask: Array) -> None:
            for one, column in zip(writes, np.split(data, len(writes), 1), strict=True):
                one(np.ascontiguousarray(column).view(f"u{column.shape[1]}")[:, 0], mask)

        return write

    # Instructions.

    def _compute(self, x: Instruction) -> Step:
        operation = OPERATIONS[x.opcode]
        writes = [self._writer(operand) for operand in x.operands[0].split("|")]
        operands = zip(x.operands[1:], operation.arguments, strict=True)
        reads = [self._reader(operand, kind) for operand, kind in operands]
        if len(writes) != (2 if x.opcode.startswith("setp") and "x2" in x.opcode else 1):
            raise NotImplementedError(str(x))

        def compute(mask: Array) -> None:
            result = operation.compute(*[read() for read in reads])
            result = result.astype(operation.result, copy=False)
            for write, one in zip(writes, result if len(writes) > 1 else (result,), strict=True):
                write(one, mask)

        return compute

    def _move(self, x: Instruction, kind: Any) -> Step:
        """Registers move into one of as many bits, the first the lowest; or the other way round."""
        part = np.dtype(f"u{kind.itemsize // len(_listed(x.operands[1]))}")
        read, write = self._columns(x.operands[1], part), self._column_writer(x.operands[0])
        return lambda mask: write(read(), mask)

    def _one_place(self, operand: str, space: str, n: int) -> Places:
        base, _, offset = operand.strip("[] ").replace(" ", "").partition("+")
        read, plus = self._reader(base, U64 if space == "global" else U32), int(offset or 0)
        start = self._memories[space][1]
        return lambda mask: [(start + read().astype(S64) + plus)[mask]]

    def _halves(self, trans: list[str], operand: str, space: str, n: int) -> Places:
        """Each of n 8x8 matrices of 16 bits has the two elements of a thread at these places, one after the other.

        Thread 4 r + c has those of row r in columns 2 c and 2 c + 1, or if transposed of column r in these rows.
        Lane 8 m + r has the address of row r of matrix m.
        """
        address = self._one_place(operand, space, n)
        r, first = np.arange(_WARP) // 4, 2 * (np.arange(_WARP) % 4)
        elements = [(first + i, r) if trans else (r, first + i) for i in range(2)]

        def places(mask: Array) -> list[Array]:
            self._together(mask)
            of_warps = address(mask)[0].reshape(-1, _WARP)
            if (of_warps[:, : 8 * n] % 16).any():
                raise Fault("row of a matrix at no multiple of 16")
            return [
                (of_warps[:, 8 * m + row] + 2 * column).reshape(-1)
                for m in range(n)
                for row, column in elements
            ]

        return places

    def _access(self, x: Instruction, space: str, kind: Any, n: int, size: int, how: Any) -> Step:
        """Load, or store, n numbers of a type a thread, in pieces of this size at places that `how` finds."""
        there, here = x.operands if x.opcode.startswith("st") else x.operands[::-1]
        if len(_listed(here)) != n or n * kind.itemsize > 16:
            raise NotImplementedError(str(x))
        memory, places = self._memories[space][0], how(there, space, n)
        if x.opcode.startswith("st"):
            read = self._columns(here, kind)

            def store(mask: Array) -> None:
                threads, data = self._threads(mask), read()[mask]
                for i, at in enumerate(places(mask)):
                    memory.store(at, data[:, i * size : (i + 1) * size], threads, self._now)

            return store
        write = self._column_writer(here)

        def load(mask: Array) -> None:
            threads, data = self._threads(mask), np.zeros((len(mask), n * kind.itemsize), np.uint8)
            pieces = [memory.load(at, size, threads, self._now) for at in places(mask)]
            data[mask] = np.concatenate(pieces, 1)
            write(data, mask)

        return load

    def _threads(self, mask: Array) -> Threads:
        barriers = self._barrier[mask], self._warp_barrier[mask]
        return Threads(self._thread[mask], self._listing.threads, *barriers)

    # Warps.

    def _together(self, mask: Array) -> None:
        warps = mask.reshape(-1, _WARP)
        if (warps.any(1) != warps.all(1)).any():
            raise Fault("a warp has parted")

    def _synchronise(self, mask: Array) -> None:
        self._together(mask)
        self._now += 1
        self._warp_barrier[mask] = self._now

    def _shuffle(self, x: Instruction) -> Step:
        read, by = self._reader(x.operands[1], U32), self._reader(x.operands[2], U32)
        of_lane = np.bitwise_xor if "bfly" in x.opcode else lambda lane, other: other
        write = self._writer(x.operands[0])

        def shuffle(mask: Array) -> None:
            self._together(mask)
            lane = self._thread % _WARP
            source = self._thread - lane + of_lane(lane, by().astype(S64)) % _WARP
            write(np.broadcast_to(read(), mask.shape)[source], mask)

        return shuffle

    def _reduce(self, x: Instruction, operation: Any, kind: Any) -> Step:
        read, members = self._reader(x.operands[1], kind), self._reader(x.operands[2], U32)
        write = self._writer(x.operands[0])

        def reduce(mask: Array) -> None:
            self._together(mask)
            if (members() != 0xFFFFFFFF).any():
                raise NotImplementedError(f"a part of a warp: {x}")
            values = np.broadcast_to(read(), mask.shape).reshape(-1, _WARP)
            result = operation.reduce(values, axis=1, dtype=kind)
            write(np.repeat(result, _WARP), mask)

        return reduce


def _listed(operand: str) -> list[str]:
    """{a, b} or a"""
    return [x.strip() for x in operand.strip("{}").split(",")]

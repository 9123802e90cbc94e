"""The emulator on small programs: what threads do together, and each fault that it must find."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx.listing import parse
from tests.ptx.machine import Machine
from tests.ptx.memory import GAP, Fault, Memory, Race

REGISTERS = ".reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<99>; .reg .b64 %rd<9>;"
# %r1: the thread, %r2: its bytes in `data` and in shared memory, %rd2: its place in `data`
BEGIN = """
ld.param.b64 %rd1, [f_param_0];
mov.u32 %r1, %tid.x;
shl.b32 %r2, %r1, 2;
mov.u32 %r3, %ctaid.x;
mad.wide.u32 %rd2, %r1, 4, %rd1;
"""
END = "st.global.b32 [%rd2], %r9; ret;"


def run(
    body: str, data: np.ndarray, programs: int = 1, threads: int = 32, written: bool = True
) -> np.ndarray:
    """The words of `data` after the program."""
    text = f""".visible .entry f(
        .param .u64 .ptr .global .align 1 f_param_0
)
.reqntid {threads}
{{
{REGISTERS}
{BEGIN.strip()}
{body}
}}
"""
    memory = Memory(data.nbytes + 3 * GAP)
    start = memory.allocate(data.view(np.uint8), written, True)
    Machine(parse(text), [start], programs, memory, 4 * threads).run()
    return memory.bytes[start : start + data.nbytes].view(data.dtype)


def words(n: int = 32) -> np.ndarray:
    return np.arange(n, dtype=np.uint32) * 10


def test_threads_that_part_meet_again():
    body = f"""
    and.b32 %r4, %r1, 1;
    setp.eq.b32 %p1, %r4, 0;
    @%p1 bra $even;
    add.s32 %r5, %r1, 100;
    bra.uni $together;
$even:
    mov.b32 %r5, 7;
$together:
    shfl.sync.bfly.b32 %r9, %r5, 1, 31, -1;
    {END}"""
    found = run(body, words())
    thread = np.arange(32)
    np.testing.assert_array_equal(found, np.where(thread % 2 == 0, thread + 101, 7))


def test_each_thread_has_its_own_number_of_turns():
    body = f"""
    mov.b32 %r9, 0;
    mov.b32 %r4, 0;
$turn:
    add.s32 %r9, %r9, %r4;
    add.s32 %r4, %r4, 1;
    setp.le.u32 %p1, %r4, %r1;
    @%p1 bra $turn;
    bar.warp.sync -1;
    {END}"""
    np.testing.assert_array_equal(run(body, words()), [t * (t + 1) // 2 for t in range(32)])


def test_a_guard_keeps_what_a_register_had():
    body = f"""
    mov.b32 %r9, 1;
    setp.gt.u32 %p1, %r1, 20;
    @%p1 mov.b32 %r9, 2;
    @!%p1 add.s32 %r9, %r9, 4;
    {END}"""
    np.testing.assert_array_equal(run(body, words()), [5] * 21 + [2] * 11)


def test_registers_are_packed_and_unpacked_and_vectors_moved():
    body = """
    setp.ne.b32 %p1, %r1, 0;
    @%p1 ret;
    ld.global.v4.b32 {%r4, %r5, %r6, %r7}, [%rd1+16];
    mov.b64 %rd3, {%r4, %r5};
    { .reg .b32 tmp; mov.b64 {tmp, %r8}, %rd3; }
    mov.b32 {%rs1, _}, %r6;
    ld.global.b8 %rs2, [%rd1 + 4];
    mov.b32 %r9, {%rs1, %rs2};
    st.global.v2.b32 [%rd1], {%r8, %r9};
    ret;"""
    found = run(body, words())
    np.testing.assert_array_equal(found[:4], [50, 60 + (10 << 16), 20, 30])


@pytest.mark.parametrize(("operation", "kind"), [("min", "s32"), ("max", "s32"), ("add", "s32")])
def test_a_warp_is_reduced(operation, kind):
    body = f"""
    ld.global.b32 %r4, [%rd2];
    mov.b32 %r5, -1;
    redux.sync.{operation}.{kind} %r9, %r4, %r5;
    {END}"""
    data = np.random.default_rng(0).integers(-99, 99, 64).astype(np.int32)
    wanted = [getattr(x, {"add": "sum"}.get(operation, operation))() for x in data.reshape(2, 32)]
    np.testing.assert_array_equal(run(body, data, threads=64), np.repeat(wanted, 32))


def test_matrices_go_to_shared_memory_and_back_transposed():
    """Row r of an 8x8 matrix of 16 bits lies at 16 r, where lane r points; lane 4 r + c has the pair c of row r."""
    body = f"""
    ld.global.b32 %r4, [%rd2];
    and.b32 %r5, %r1, 7;
    shl.b32 %r5, %r5, 4;
    stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r5], {{%r4}};
    bar.warp.sync -1;
    ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {{%r9}}, [%r5];
    {END}"""
    data = np.arange(64, dtype=np.uint16)
    found = run(body, data.view(np.uint32)).view(np.uint16)
    np.testing.assert_array_equal(found.reshape(8, 8), data.reshape(8, 8).T)


EXCHANGE = """
st.shared.b32 [%r2], %r1;
{barrier}
xor.b32 %r4, %r2, {distance};
mov.b32 %r5, global_smem;
add.s32 %r4, %r4, %r5;
ld.shared.b32 %r9, [%r4];
{end}"""


@pytest.mark.parametrize(("barrier", "distance"), [("bar.warp.sync -1;", 4), ("bar.sync 0;", 128)])
def test_threads_exchange_by_shared_memory_across_a_barrier(barrier, distance):
    body = EXCHANGE.format(barrier=barrier, distance=distance, end=END)
    thread = np.arange(64)
    np.testing.assert_array_equal(run(body, words(64), threads=64), thread ^ distance // 4)


@pytest.mark.parametrize(("barrier", "distance"), [("", 4), ("bar.warp.sync -1;", 128)])
def test_without_the_barrier_it_is_a_race(barrier, distance):
    body = EXCHANGE.format(barrier=barrier, distance=distance, end=END)
    with pytest.raises(Race, match="reads what another thread writes") as found:
        run(body, words(64), threads=64)
    assert "ld.shared" in found.value.__notes__[0]


def race(write: str) -> str:
    return f"""
    ld.global.b32 %r4, [%rd1];
    bar.warp.sync -1;
    setp.eq.b32 %p1, %r1, 0;
    {write}
    ret;"""


def test_writing_what_another_warp_reads_is_a_race():
    write = "@%p1 st.global.b32 [%rd1], %r1;"
    run(race(write), words(), threads=32)
    with pytest.raises(Race, match="writes what another thread reads"):
        run(race(write), words(64), threads=64)


@pytest.mark.parametrize("value", ["%r1", "%r3"])
def test_a_barrier_is_no_order_between_programs(value):
    body = f"""
    setp.eq.b32 %p1, %r3, 0;
    @%p1 st.global.b32 [%rd2], %r1;
    bar.sync 0;
    @!%p1 st.global.b32 [%rd2], {value};
    ret;"""
    if value == "%r1":  # the same number
        np.testing.assert_array_equal(run(body, words(), programs=2), range(32))
    else:
        with pytest.raises(Race, match="writes another value than another thread"):
            run(body, words(), programs=2)


def test_one_instruction_must_not_write_two_values_to_a_place():
    run("mov.b32 %r9, 5; st.global.b32 [%rd1], %r9; ret;", words())
    with pytest.raises(Race, match="different values to one address at once"):
        run("st.global.b32 [%rd1], %r1; ret;", words())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("ld.global.b32 %r9, [%rd2+4]; ret;", "out of bounds"),
        ("ld.global.b32 %r9, [%rd2+-4]; ret;", "out of bounds"),
        ("st.global.b32 [%rd2+4], %r1; ret;", "out of bounds"),
        ("st.shared.b32 [%r2+4], %r1; ret;", "out of bounds"),
        ("ld.global.b16 %rs1, [%rd2+1]; ret;", "no multiple of 2"),
        ("ld.global.v2.b32 {%r8, %r9}, [%rd1+4]; ret;", "no multiple of 8"),
        ("ld.shared.b32 %r9, [%r2]; ret;", "nobody has written"),
        ("add.s32 %r9, %r8, 1; ret;", "reads %r8, which nobody has written"),
        ("setp.gt.u32 %p1, %r1, 3; @%p1 ret; bar.sync 0; ret;", "do not wait at one barrier"),
        ("setp.gt.u32 %p1, %r1, 3; @%p1 ret; bar.warp.sync -1; ret;", "a warp has parted"),
        (
            "setp.gt.u32 %p1, %r1, 3; @%p1 ret; shfl.sync.idx.b32 %r9, %r1, 0, 31, -1; ret;",
            "a warp has parted",
        ),
    ],
)
def test_a_fault_is_found(body, said):
    with pytest.raises(Fault, match=said):
        run(body.replace("; ", ";\n"), words())


def test_memory_that_nobody_wrote_is_not_read():
    body = "ld.global.b32 %r9, [%rd2]; ret;"
    run(body, words())
    with pytest.raises(Fault, match="nobody has written"):
        run(body, words(), written=False)


@pytest.mark.parametrize(
    "instruction",
    [
        "add.sat.s32 %r9, %r1, 1",
        "atom.global.add.u32 %r9, [%rd1], 1",
        "shfl.sync.up.b32 %r9, %r1, 1, 0, -1",
        "shfl.sync.bfly.b32 %r9, %r1, 1, 31, 15",
        "bar.sync 0, 32",
        "ld.global.v8.b32 {%r9, %r1}, [%rd1]",
        "call.uni f, (%r1)",
    ],
)
def test_an_unknown_instruction_is_an_error_before_anything_runs(instruction):
    with pytest.raises(NotImplementedError):
        run(f"ret;\n{instruction};", words())

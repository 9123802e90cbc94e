"""The emulator on small programs: what threads do together, and each fault that it must find."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx.listing import parse
from tests.ptx.machine import Machine
from tests.ptx.memory import Fault, Memory, Race

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
    body: str,
    data: np.ndarray,
    programs: int = 1,
    threads: int = 32,
    written: bool = True,
    writable: bool = True,
    shared: int = 256,
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
    memory = Memory([data.nbytes])
    place = memory.allocate(data.view(np.uint8), allowed=True)
    memory.writable[place], memory.written[place] = writable, written
    Machine(parse(text), [place.start], programs, memory, shared).run()
    return memory.bytes[place].view(data.dtype)


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


def test_numbers_in_the_text_are_of_the_type_of_their_place():
    body = """
    mov.pred %p1, -1;
    not.pred %p2, %p1;
    selp.b32 %r4, -1, 0, %p1;
    selp.b32 %r5, 0f3F800000, 0, %p2;
    st.global.b32 [%rd2], 5;
    @%p1 st.global.b8 [%rd2+3], 0x80U;
    @%p2 st.global.b32 [%rd2], %r4;
    st.global.b32 [%rd2+128], %r4;
    st.global.b32 [%rd2+256], %r5;
    ret;"""
    found = run(body, words(96)).reshape(3, 32)
    np.testing.assert_array_equal(found[:, 7], [5 + 0x80 * 2**24, 2**32 - 1, 0])
    assert (found == found[:, :1]).all()


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


MATRICES = """
and.b32 %r4, %r1, 7;
shl.b32 %r4, %r4, 4;
shr.u32 %r5, %r1, 3;
shl.b32 %r5, %r5, 7;
add.s32 %r4, %r4, %r5;
shl.b32 %r5, %r1, 4;
ld.global.b32 %r10, [%rd2];
ld.global.b32 %r11, [%rd2+128];
ld.global.b32 %r12, [%rd2+256];
ld.global.b32 %r13, [%rd2+384];
bar.warp.sync -1;
"""


def exchanged(transpose: str) -> np.ndarray:
    """The four matrices are [matrix, row, column]: lane 8 m + r points to row r of matrix m."""
    body = f"""{MATRICES}
    {transpose}
    st.global.b32 [%rd2], %r10;
    st.global.b32 [%rd2+128], %r11;
    st.global.b32 [%rd2+256], %r12;
    st.global.b32 [%rd2+384], %r13;
    ret;"""
    data = np.arange(256, dtype=np.uint16)
    found = run(body, data.view(np.uint32), shared=512)
    return found.view(np.uint16).reshape(4, 8, 8)


REGISTERS_OF_MATRICES = "{%r10, %r11, %r12, %r13}"
STORE = f"stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r4], {REGISTERS_OF_MATRICES};"
LOAD = f"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {REGISTERS_OF_MATRICES}, [%r4];"


@pytest.mark.parametrize(("store", "load"), [("", ""), ("trans.", ""), ("", "trans.")])
def test_matrices_go_to_shared_memory_and_back(store, load):
    """Lane 4 r + c has the pair c of row r of each: of column r, if they are transposed."""
    there = STORE.replace("shared", f"{store}shared")
    back = LOAD.replace("shared", f"{load}shared")
    found = exchanged(f"{there}\nbar.warp.sync -1;\n{back}")
    wanted = np.arange(256).reshape(4, 8, 8)
    np.testing.assert_array_equal(found, wanted.swapaxes(1, 2) if store or load else wanted)


@pytest.mark.parametrize("trans", ["", "trans."])
def test_a_row_of_a_matrix_lies_where_its_lane_points(trans):
    vector = "{%r10, %r11, %r12, %r13}"
    there = STORE.replace("shared", f"{trans}shared")
    found = exchanged(f"{there}\nbar.warp.sync -1;\nld.shared.v4.b32 {vector}, [%r5];")
    # lane l has read row l % 8 of matrix l / 8, whose pairs are stored one after the other
    rows = found.reshape(4, 32, 2).swapaxes(0, 1).reshape(4, 8, 8)
    wanted = np.arange(256).reshape(4, 8, 8)
    np.testing.assert_array_equal(rows, wanted.swapaxes(1, 2) if trans else wanted)


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
    with pytest.raises(Race, match=r"reads what another thread writes: ld\.shared"):
        run(body, words(64), threads=64)


@pytest.mark.parametrize("writer", [0, 31, 32, 63])
def test_writing_what_other_threads_read_is_a_race(writer):
    body = """
    ld.global.b32 %r4, [%rd1];
    {barrier}
    setp.eq.b32 %p1, %r1, {writer};
    @%p1 st.global.b32 [%rd1], %r1;
    ret;"""
    run(body.format(barrier="bar.sync 0;", writer=writer), words(64), threads=64)
    for barrier in ("", "bar.warp.sync -1;"):
        with pytest.raises(Race, match="writes what another thread reads"):
            run(body.format(barrier=barrier, writer=writer), words(64), threads=64)


def test_a_value_that_two_wrote_is_overwritten_by_neither():
    body = """
    mov.b32 %r9, 5;
    setp.eq.b32 %p1, %r3, {second};
    st.global.b32 [%rd2], %r9;
    @%p1 st.global.b32 [%rd2], %r1;
    ret;"""
    for second in (0, 1):
        with pytest.raises(Race, match="another value"):
            run(body.format(second=second), words(), programs=2)


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
        ("st.shared.b32 [%r2+132], %r1; ret;", "out of bounds"),
        ("ld.global.b16 %rs1, [%rd2+1]; ret;", "no multiple of 2"),
        ("ld.global.v2.b32 {%r8, %r9}, [%rd1+4]; ret;", "no multiple of 8"),
        ("ld.shared.b32 %r9, [%r2]; ret;", "nobody has written"),
        ("setp.gt.u32 %p1, %r1, 3; @%p1 ret; bar.sync 0; ret;", "a warp has parted"),
        ("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r2], {%r1}; ret;", "no multiple of 16"),
        ("ld.global.b32 %r9, [%rd2+256]; ret;", "out of bounds"),
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


def test_warps_of_a_program_wait_for_each_other():
    with pytest.raises(Fault, match="do not wait at one barrier"):
        run("setp.gt.u32 %p1, %r1, 31;\n@%p1 ret;\nbar.sync 0;\nret;", words(64), threads=64)


def test_memory_that_is_only_to_be_read_is_not_written():
    with pytest.raises(Fault, match="out of bounds"):
        run("st.global.b32 [%rd2], %r1;\nret;", words(), writable=False)


def test_programs_know_their_number_and_how_many_there_are():
    body = """
    mov.u32 %r4, %nctaid.x;
    shl.b32 %r4, %r4, 8;
    add.s32 %r9, %r3, %r4;
    mul.wide.u32 %rd3, %r3, 4;
    add.s64 %rd2, %rd1, %rd3;
    st.global.b32 [%rd2], %r9;
    ret;"""
    np.testing.assert_array_equal(run(body, words(3), programs=3), 3 * 256 + np.arange(3))


@pytest.mark.parametrize(
    ("mode", "lane", "source"),
    [
        *(("bfly", str(d), lambda t, d=d: t ^ d) for d in (1, 2, 4, 8, 16)),
        ("idx", "5", lambda t: t - t % 32 + 5),
        ("idx", "%r4", lambda t: t - t % 32 + (t * 3 + 1) % 32),
    ],
)
def test_threads_of_a_warp_exchange_registers(mode, lane, source):
    body = f"""
    mad.lo.s32 %r4, %r1, 3, 1;
    shfl.sync.{mode}.b32 %r9, %r1, {lane}, 31, -1;
    {END}"""
    np.testing.assert_array_equal(run(body, words(64), threads=64), source(np.arange(64)))


def test_a_register_that_a_thread_has_not_written_holds_no_number():
    body = f"""
    setp.gt.u32 %p1, %r1, 2;
    @%p1 mov.b32 %r4, 0f40000000;
    add.f32 %r9, %r4, %r4;
    @%p1 mov.b16 %rs1, 0;
    cvt.f32.bf16 %r5, %rs1;
    add.f32 %r9, %r9, %r5;
    {END}"""
    found = run(body, words()).view(np.float32)
    np.testing.assert_array_equal(found, [np.nan] * 3 + [4.0] * 29)


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
        "ld.global.v4.b64 {%rd3, %rd4, %rd5, %rd6}, [%rd1]",
        "ld.global.v4.b32 {%r9, %r1}, [%rd1]",
        "ld.global.s8 %rs1, [%rd1]",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r9}, [%r2]",
        "shfl.sync.bfly.b32 %r9|%p1, %r1, 1, 31, -1",
        "setp.lt.s32 %p1|%p2, %r1, 3",
        "redux.sync.add.u64 %rd2, %rd1, -1",
        "st.global.b64 [%rd1], %r1",
        "bar.sync 1",
        "call.uni f, (%r1)",
    ],
)
def test_an_unknown_instruction_is_an_error_before_anything_runs(instruction):
    with pytest.raises(NotImplementedError):
        run(f"ret;\n{instruction};", words())


def test_a_register_of_another_kind_is_unknown():
    with pytest.raises(NotImplementedError, match="type f32"):
        run(".reg .f32 %f<3>;\nret;", words())

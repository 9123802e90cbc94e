"""How often instructions run: on a kernel whose loops are known, and on lines of machine code."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

pytest.importorskip("triton", reason="Triton does not exist for this platform")

from synthetic_kernel import BLOCK, WARPS, compiled

from bench.ledger.pool import processes
from bench.machine_code import amdgcn, opcodes, sass

NVIDIA = ("sm_80", "sm_90", "sm_100")


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with processes() as found:
        yield found


@pytest.mark.parametrize("architecture", [*NVIDIA, "gfx942"])
def test_nested_loops_are_followed_however_they_are_unrolled(architecture, pool):
    lanes = 32 if architecture in NVIDIA else 64
    of_a_lane = BLOCK // (lanes * WARPS)
    shapes = [(1, 1), (1, 5), (2, 6), (3, 7), (5, 16), (2, 19)]
    jobs = [pool.submit(compiled, rows, blocks * BLOCK, architecture) for rows, blocks in shapes]
    for (rows, blocks), job in zip(shapes, jobs, strict=True):
        code = job.result()
        loads, stores = opcodes.accesses(code.executed, architecture)
        assert loads == {32 * of_a_lane: rows * blocks}
        assert stores == {32 * of_a_lane: rows}
        found = opcodes.by_class(code.executed, architecture)
        assert found["special"] == rows * blocks * of_a_lane
        assert found["all"] == sum(code.executed.values())


SASS = """
.text.kernel:
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;
        /*0010*/                   ULDC.64 UR4, c[0x0][0x210] ;
        /*0020*/                   CS2R R2, SRZ ;
        /*0030*/                   UIADD3 UR6, UR5, -0x2, URZ ;
.L_x_1:
        /*0040*/                   IADD3 R2, R2.reuse, 0x1, RZ ;
        /*0050*/                   MUFU.EX2 R4, R5 ;
        /*0060*/                   ISETP.GE.AND P0, PT, R2, UR6, PT ;
        /*0070*/              @!P0 BRA `(.L_x_1) ;
        /*0080*/                   FSETP.GT.AND P1, PT, R4, R5, PT ;
        /*0090*/               @P1 BRA `(.L_x_2) ;
        /*00a0*/                   CALL.REL.NOINC `(division) ;
.L_x_2:
        /*00b0*/              @!P1 BRA `(.L_x_3) ;
        /*00c0*/                   DADD R6, R6, R8 ;
.L_x_3:
        /*00d0*/              @!P0 LDG.E.128 R12, desc[UR8][R10.64] ;
        /*00e0*/               @P0 STG.E.U16 desc[UR8][R10.64], R4 ;
        /*00f0*/                   EXIT ;
division:
        /*0100*/                   RET.REL.NODEC R4 `(kernel) ;
.L_x_4:
        /*0110*/                   BRA `(.L_x_4) ;
        /*0120*/                   NOP ;
"""


def test_sass_by_hand():
    code = sass.Code.parse(SASS)
    static = code.count()
    assert sum(static.values()) == 17  # without the padding
    executed = code.run({0x214: 7})
    # c[0x214] - 2 = 5 times through the loop
    assert executed == {
        "IMAD.MOV.U32": 1,
        "ULDC.64": 1,
        "CS2R": 1,
        "UIADD3": 1,
        "IADD3": 5,
        "MUFU.EX2": 5,
        "ISETP.GE.AND": 5,
        "BRA": 4 + 2,
        "FSETP.GT.AND": 1,
        # not the call, which a branch on a score avoids, but what another such branch would
        "DADD": 1,
        # issued for nothing, as their predicates are false: the branch back at the end, and the load
        sass.SWITCHED_OFF: 1 + 1,
        "STG.E.U16": 1,
        "EXIT": 1,
    }
    assert opcodes.accesses(static, "sm_90") == ({128: 1}, {16: 1})
    assert opcodes.accesses(executed, "sm_90") == ({}, {16: 1})
    found = opcodes.by_class(executed, "sm_90")
    assert (found["all"], found["special"], found["float64"]) == (31, 5, 1)


def test_a_loop_of_unknown_length_runs_once_and_moves_no_data():
    assert sass.Code.parse(SASS).run({})["MUFU.EX2"] == 1
    reads = SASS.replace("MUFU.EX2 R4, R5", "LDG.E R4, desc[UR8][R10.64]")
    with pytest.raises(ValueError, match="repeats"):
        sass.Code.parse(reads).run({})


@pytest.mark.parametrize(("arguments", "times"), [({}, 1), ({0x214: 7}, 5)])
def test_a_loop_may_be_left_by_a_call(arguments, times):
    left = SASS.replace(
        "@!P0 BRA `(.L_x_1) ;", "@P0 CALL.REL.NOINC `(.L_x_2) ;\n/**/ BRA `(.L_x_1) ;"
    )
    executed = sass.Code.parse(left.replace("/**/", "        /*0075*/")).run(arguments)
    assert (executed["MUFU.EX2"], executed["DADD"]) == (times, 1)


SELDOM = """
        /*00c0*/                   MUFU.EX2 R6, R5 ;
.L_x_5:
        /*00c4*/                   STG.E desc[UR8][R10.64], R4 ;
        /*00c8*/              @!P1 BRA `(.L_x_5) ;
"""


def test_a_loop_that_moves_data_and_may_be_skipped_does_not_count():
    line = "        /*00c0*/                   DADD R6, R6, R8 ;\n"
    assert line in SASS
    executed = sass.Code.parse(SASS.replace(line, SELDOM.lstrip("\n"))).run({0x214: 7})
    assert (executed["MUFU.EX2"], executed["STG.E"]) == (5, 0)


@pytest.mark.parametrize(
    ("instructions", "times"),
    [
        # 64-bit counters: carry and comparison of the upper half
        (
            """IADD3 R2, P1, R2, 0x60000000, RZ ; IMAD.X R3, RZ, RZ, R3, P1 ;
            ISETP.GE.U32.AND P0, PT, R2, 0x0, PT ; ISETP.GE.AND.EX P0, PT, R3, 0x1, PT, P0 ;""",
            3,
        ),
        ("IADD3 R2, R2, 0x1, RZ ; ISETP.GT.U32.AND P0, PT, R2, 0x3, PT ;", 4),
        ("VIADD R2, R2, 0xffffffff ; ISETP.LT.AND P0, PT, R2, -0x6, PT ;", 7),
        ("IMAD R2, R2, 0x3, R5 ; ISETP.EQ.AND P0, PT, R2, 0xd, PT ;", 3),
        ("LEA R2, R2, R5, 0x1 ; SHF.R.S32.HI R6, RZ, 0x2, R2 ; ISETP.NE.AND P0, PT, R6, RZ, PT ;", 3),
        # of 64 bits shifted it is one half that is kept
        ("IADD3 R2, R2, 0x1, RZ ; SHF.L.U64.HI R1, R6, 0x1, R7 ; ISETP.GE.AND P0, PT, R2, 0x4, PT ;", 4),
        ("IADD3 R2, R2, 0x1, RZ ; LOP3.LUT R6, R2, 0x8, RZ, 0xc0, !PT ; ISETP.NE.AND P0, PT, R6, RZ, PT ;", 8),
        (
            """IADD3 R2, R2, 0x1, RZ ; ISETP.GE.AND P1, PT, R2, 0x5, PT ; P2R R6, PR, RZ, 0x2 ;
            SEL R7, RZ, 0x1, !P1 ; ISETP.EQ.AND P2, PT, R7, 0x1, PT ; LEA.HI R8, R6, RZ, RZ, 0x1f ;
            PLOP3.LUT P0, PT, P1, P2, PT, 0x80, 0x0 ;""",
            5,
        ),
    ],
)  # fmt: skip
def test_integer_instructions(instructions, times):
    lines = [x.strip() for x in instructions.split(";") if x.strip()]
    body = [*lines, "@!P0 BRA `(.L_x_1)", "EXIT"]
    head = ["CS2R R2, SRZ", "HFMA2.MMA R5, -RZ, RZ, 0, 5.9604644775390625e-08"]
    text = "\n".join(f"        /*0000*/   {x} ;" for x in head)
    text += "\n.L_x_1:\n" + "\n".join(f"        /*0000*/   {x} ;" for x in body)
    assert sass.Code.parse(text).run({})[lines[0].split()[0]] == times


AMD = """
kernel:
\ts_load_dwordx2 s[6:7], s[0:1], 0x8
\ts_mov_b32 s4, 0
\tv_mov_b32_e32 v9, 0
\ts_cmp_lt_i32 s7, 1
\ts_cselect_b64 s[8:9], -1, 0
\ts_and_b64 vcc, exec, s[8:9]
\ts_cbranch_vccnz .LBB0_2
.LBB0_1:                                ; =>This Inner Loop Header: Depth=1
\tv_exp_f32_e32 v1, v1
\ts_addk_i32 s4, 0x100
\ts_cmp_lt_i32 s4, s7
\ts_cbranch_scc1 .LBB0_1
.LBB0_2:
\tv_add_u32_e32 v9, 2, v9
\tv_cmp_gt_i32_e32 vcc, s7, v9
\tv_cndmask_b32_e64 v10, 7, 8, vcc
\tv_cmp_eq_u32_e64 s[2:3], 8, v10
\ts_and_b64 vcc, exec, s[2:3]
\ts_cbranch_vccz .LBB0_3
\tv_cmp_gt_f32_e32 vcc, v1, v2
\ts_cbranch_vccz .LBB0_3
\tv_add_f64 v[4:5], v[4:5], v[6:7]
.LBB0_3:
\tbuffer_store_dwordx4 v[0:3], v8, s[8:11], 0 offen
\ts_endpgm
\t.section .rodata
"""


@pytest.mark.parametrize(
    ("n", "loops", "float64"), [(0, 0, 0), (2, 1, 0), (512, 2, 1), (513, 3, 1)]
)
def test_amd_by_hand(n, loops, float64):
    code = amdgcn.Code.parse(AMD)
    assert sum(code.count().values()) == 22
    executed = code.run({0x8: 1, 0xC: n})
    found = opcodes.by_class(executed, "gfx942")
    assert (found["special"], found["float64"]) == (loops, float64)
    assert opcodes.accesses(executed, "gfx942") == ({}, {128: 1})


def test_a_loop_of_unknown_length_runs_once_and_moves_no_data_for_amd():
    assert amdgcn.Code.parse(AMD).run({})["v_exp_f32_e32"] == 1
    reads = AMD.replace("v_exp_f32_e32 v1, v1", "buffer_load_dword v1, v8, s[8:11], 0 offen")
    reads = reads.replace("s_cmp_lt_i32 s4, s7", "s_cmp_lt_i32 s4, s33")
    with pytest.raises(ValueError, match="repeats"):
        amdgcn.Code.parse(reads).run({0x8: 1, 0xC: 2})


LEFT_IN_THE_MIDDLE = """
kernel:
\ts_branch .LBB0_2
.LBB0_1:
\ts_cbranch_execz .LBB0_3
.LBB0_2:
\tv_exp_f32_e32 v1, v1
\ts_branch .LBB0_1
.LBB0_3:
\ts_endpgm
"""
OUT_OF_LINE = """
kernel:
\ts_cbranch_execnz .LBB0_3
.LBB0_1:
\tv_add_u32_e32 v9, 2, v9
\ts_cbranch_execz .LBB0_2
\tbuffer_store_dwordx4 v[0:3], v8, s[8:11], 0 offen
.LBB0_4:
\tbuffer_store_dwordx2 v[0:1], v8, s[8:11], 0 offen
\ts_cbranch_execnz .LBB0_4
.LBB0_2:
\ts_endpgm
.LBB0_3:
\tv_exp_f32_e32 v1, v1
\ts_cbranch_execz .LBB0_1
\ts_branch .LBB0_1
"""


@pytest.mark.parametrize("first", ["s_branch .LBB0_2", "s_nop 0"])
def test_a_loop_that_is_left_in_the_middle_runs_once_for_amd(first):
    code = amdgcn.Code.parse(LEFT_IN_THE_MIDDLE.replace("s_branch .LBB0_2", first))
    assert code.run({})["v_exp_f32_e32"] == 1
    moved = "buffer_store_dwordx4 v[0:3], v8, s[8:11], 0 offen"
    code = amdgcn.Code.parse(LEFT_IN_THE_MIDDLE.replace("v_exp_f32_e32 v1, v1", moved))
    with pytest.raises(ValueError, match="repeats"):
        code.run({})


def test_code_out_of_line_is_no_loop_for_amd():
    # neither does the first branch skip the loop behind it, nor is the way back one
    executed = amdgcn.Code.parse(OUT_OF_LINE).run({})
    assert executed["v_exp_f32_e32"] == 0
    assert executed["v_add_u32_e32"] == 1
    assert executed["buffer_store_dwordx4"] == 0
    back = OUT_OF_LINE.replace("s_cbranch_execnz .LBB0_3", "s_branch .LBB0_3")
    assert amdgcn.Code.parse(back).run({})["v_exp_f32_e32"] == 1


@pytest.mark.parametrize(
    ("compare", "times"),
    [
        ("s_cmp_lt_u32 s4, 0x300", 3),
        ("s_cmpk_lt_u32 s4, 0x300", 3),
        ("s_cmpk_lt_u32 s4, 0xff00", 255),
        ("s_cmpk_lt_i32 s4, 0xff00", 1),
        ("s_cmpk_lt_i32 s4, 0x7f00", 127),
    ],
)
def test_comparisons_with_constants_for_amd(compare, times):
    code = amdgcn.Code.parse(AMD.replace("s_cmp_lt_i32 s4, s7", compare))
    assert code.run({0x8: 1, 0xC: 2})["v_exp_f32_e32"] == times

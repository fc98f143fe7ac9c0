"""Counting instructions in machine code: on a listing made up, and on the kernels where NVIDIA's tools are installed."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import sass

LISTING = """
.text.transmit:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   IADD3 R2, R2, 0x1, RZ ;
.L_x_2:
        /*0020*/                   LDS.128 R8, [R3] ;
        /*0030*/                   FFMA R4, R8, R9, R4 ;
        /*0040*/              @!P0 FFMA.FTZ R5, R8, R10, R5 ;
        /*0050*/               @P1 BRA `(.L_x_2) ;
.L_x_3:
        /*0060*/                   MUFU.EX2 R6, R6 ;
        /*0070*/                   FFMA R7, R6, R6, R7 ;
        /*0080*/               @P2 BRA `(.L_x_3) ;
        /*0090*/              @!P3 BRA `(.L_x_1) ;
        /*00a0*/                   BRA `(.L_x_9) ;
        /*00b0*/                   EXIT ;
""".strip().splitlines()


def test_instructions_are_told_from_labels_and_predicates():
    assert [sass.opcode(line) for line in LISTING[:2]] == ["", "MOV"]
    assert [sass.opcode(line) for line in LISTING[5:9]] == ["LDS", "FFMA", "FFMA", "BRA"]


def test_loops_end_at_a_branch_back_and_the_inner_one_has_the_multiply_adds():
    loops = sass.loops_of(LISTING)
    assert loops == [(4, 8), (9, 12), (2, 13)]
    assert [sass.inner_loops(loop, loops) for loop in loops] == [0, 0, 2]
    assert [sass.opcode(line) for line in sass.inner_loop(LISTING)] == ["LDS", "FFMA", "FFMA", "BRA"]
    assert sass.count(LISTING, (2, 13), "FFMA") == 3
    assert sass.inner_loop(LISTING[:2]) == []


@pytest.mark.parametrize("capability", sass.ARCHITECTURES)
def test_the_inner_loops_hold_little_but_multiply_adds(capability):
    try:
        sass.find("nvdisasm")
        sass.nvrtc()
    except (SystemExit, OSError):
        pytest.skip("needs NVRTC and nvdisasm (nvidia-cuda-nvrtc, nvidia-cuda-nvdisasm)")
    for sizes, most in zip(sass.DAS_SIZES, (23, 20), strict=True):  # they were 28.5 and, four frames at once, 48
        assert sass.channel_of(sass.compiled("beamform.cu", sizes, capability), sizes) < most
    sizes = sass.simulation_sizes("L11-5v")
    cubin = sass.compiled("simulate.cu", sizes, capability)
    for name in ("transmit", "receive", "project"):
        row = sass.row_of(name, cubin, capability, 32 * sizes["GROUPS"])
        assert row["inner_loop"]["ffma"] == 240  # 15 transmits x 2 points x 2 frequencies x 4
        assert row["ffma_share"] > 0.85
        assert row["local_memory"] == 0
        assert row["blocks"] >= 2
        step = sass.step_of(name, cubin, sizes)
        assert step["products"] == sizes["GROUPS"] * row["inner_loop"]["instructions"]
        assert step["products"] > 0.5 * step["all"]

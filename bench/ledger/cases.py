"""The ledger has kernels of every public loss, for these architectures."""

from bench.ahead_of_time import BF16, F16, F32, F64, Case

SMALL, LARGE = 1000, 131072
_TYPES = (F32, BF16)
_LENGTHS = (128, SMALL, 4096, 16384, 32768, LARGE)
_LOSSES = {"smooth_svm": 5, "lq_loss": None, "hard_svm": 5, "smooth_svm_lq": 5}

_SM_90 = [
    *(Case(n, k, t, loss=loss) for loss, k in _LOSSES.items() for n in _LENGTHS for t in _TYPES),
    *(Case(SMALL, k, t) for k in (1, 2, 3, 10, 16) for t in _TYPES),
    *(
        Case(n, k, F32, gradient=False, loss=loss)
        for loss, k in _LOSSES.items()
        for n in (SMALL, LARGE)
    ),
    Case(SMALL, 16, F32, loss="smooth_svm_lq"),
    Case(SMALL, 5, F32, order=2),
    Case(SMALL, 5, F16),
    Case(SMALL, 5, F64),
    Case(SMALL, 5, F32, aligned=False),
    *(Case(n, 5, t) for n in (21, 100, 1001) for t in _TYPES),
    Case(21841, 5, F32),
    *(Case(1048576, 5, t) for t in _TYPES),
    *(Case(LARGE, k, F32) for k in (10, 16)),
    Case(16384, 10, F32),
    Case(4096, 16, F32),
    Case(4096, 10, BF16),
    *(Case(SMALL, k, t, loss=loss, hits=True) for loss, k in _LOSSES.items() for t in _TYPES),
    *(Case(SMALL, k, t, loss=loss, shards=2) for loss, k in _LOSSES.items() for t in _TYPES),
    Case(SMALL, 10, F32, shards=2),
    Case(LARGE, 5, F32, shards=2),
]
SM_100 = [
    *(Case(n, k, F32, loss=loss) for loss, k in _LOSSES.items() for n in (SMALL, LARGE)),
    *(Case(SMALL, k, BF16, loss=loss) for loss, k in _LOSSES.items()),
    Case(128, 5, F32),
    Case(16384, 5, F32),
    Case(SMALL, 1, F32),
    Case(SMALL, 5, F32, gradient=False),
    Case(SMALL, 5, F32, hits=True),
]
# Less like sm_90.
_SM_80 = _GFX942 = [
    *SM_100,
    Case(SMALL, 5, F32, order=2),
    Case(SMALL, 5, F32, aligned=False),
    *(Case(SMALL, k, F32) for k in (10, 16)),
    Case(SMALL, 5, F64),
]
JOBS: list[tuple[Case, str]] = [
    (case, architecture)
    for architecture, cases in {
        "sm_80": _SM_80,
        "sm_90": _SM_90,
        "sm_100": SM_100,
        "gfx942": [*_GFX942, Case(SMALL, 5, F64, loss="smooth_svm_lq")],
    }.items()
    for case in cases
]

# It spills 27 registers, and every other kernel none.
KNOWN_TO_SPILL = {"gfx942-smooth_svm_lq-n1000-k5-float64"}

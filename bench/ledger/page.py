"""The ledger as a page to be read."""

from __future__ import annotations

import pandas as pd

from bench.ledger.file import PATH, Ledger

PAGE = PATH.with_suffix(".md")
_ORDER = ["registers", "spills", "stack bytes", "shared bytes", "instructions"]
_MAIN = r"-n(?:1000|131072)(?:-k\d+)?-(?:float32|bfloat16)(?:-summaries|-finish)?$"


def render(ledger: Ledger) -> str:
    frame = pd.DataFrame.from_dict(ledger.kernels, orient="index").fillna(0).astype(int)
    frame = frame[_ORDER + [fact for fact in frame.columns if fact not in _ORDER]]
    spilling = frame[frame["spills"] + frame["stack bytes"] > 0]
    main = frame[frame.index.str.contains(_MAIN)]
    sections = [
        f"""\
# The compiled kernels

`python -m bench.ledger` shows what Triton {ledger.triton} makes of the kernel of every loss, for GPUs that need not be
there. All of it is in [kernels.json](kernels.json), which the tests compare with. A row that is too long for one
program is read twice, in parts: one launch makes summaries of them, another finishes the row. Every kernel computes
the loss and the gradient, unless its name says forward.""",
        "## Spills\n\nEvery kernel of the ledger has enough registers, except:",
        _table(spilling[_ORDER[:3]]),
        """\
## The code

Instructions are counted as they stand in the code, however often each runs; one of NVIDIA's takes 16 bytes. Special:
exponentials, logarithms and reciprocals; exp2 are those of base 2. Choices: minima, maxima, comparisons and selections
of float32. Loads and stores are of global memory, by the bits of a lane. For AMD's GPUs only what the compiler itself
says is known. The kernels are those of rows of 1,000 and 131,072 scores.""",
    ]
    for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
        of_target = main[main.index.str.startswith(target)]
        sections += [f"### {target}", _table(of_target.loc[:, (of_target != 0).any()])]
    return "\n\n".join(sections) + "\n"


def _table(frame: pd.DataFrame) -> str:
    return frame.reset_index(names="kernel").to_markdown(index=False)

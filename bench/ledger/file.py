"""The ledger has a file, which differs from another in some facts, and a page to be read."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.ledger.facts import Facts
from bench.pages import fill

PATH = Path(__file__).parents[2] / "reports" / "kernels.json"
PAGE = PATH.with_suffix(".md")
_ORDER = ["registers", "spills", "stack bytes", "shared bytes", "instructions"]
_MAIN = r"-n(?:1000|131072)(?:-k\d+)?-(?:float32|bfloat16)(?:-summaries|-finish)?$"
HELD = ("instructions", "registers", "spills", "stack bytes")  # none may grow
_WIDE = ("128", "256")  # bits of a lane
REGENERATE = "if this is wanted: python -m bench.ledger --out reports"


@dataclass(frozen=True)
class Ledger:
    triton: str  # its version
    kernels: dict[str, Facts]  # by architecture, case and, where a row takes two, launch

    def table(self) -> pd.DataFrame:
        frame = pd.DataFrame.from_dict(self.kernels, orient="index")
        columns = [*_ORDER, *sorted(frame.columns.difference(_ORDER))]
        return frame.reindex(columns=columns).fillna(0).astype(int)


def load(path: Path = PATH) -> Ledger:
    return Ledger(**json.loads(path.read_text()))


def save(ledger: Ledger, path: Path) -> None:
    """Write one kernel a line, so that a difference shows what changed."""
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps({fact: n for fact, n in facts.items() if n})}"
        for name, facts in ledger.kernels.items()
    )
    path.write_text(f'{{"triton": {json.dumps(ledger.triton)}, "kernels": {{\n{lines}\n}}}}\n')


def worse(name: str, before: Facts, after: Facts) -> list[str]:
    """Return in what a kernel is worse than it was: in something that may not grow, or in fewer wide accesses."""
    signs = dict.fromkeys(HELD, 1) | dict.fromkeys(("wide loads", "wide stores"), -1)
    before, after = ({**facts, **wide_accesses(facts)} for facts in (before, after))
    return [
        f"{name}: {fact} was {before.get(fact, 0)}, is {after.get(fact, 0)}; {REGENERATE}"
        for fact, sign in signs.items()
        if sign * after.get(fact, 0) > sign * before.get(fact, 0)
    ]


def wide_accesses(facts: Facts) -> Facts:
    """Count loads and stores of at least 128 bits, in units of 128."""
    return {
        f"wide {kind}": sum(facts.get(f"{kind} of {x} bits", 0) * int(x) // 128 for x in _WIDE)
        for kind in ("loads", "stores")
    }


def differences(before: Ledger, after: Ledger) -> pd.DataFrame:
    """Return the facts that differ in the kernels that are in both, a column each: "was > is", else nothing."""
    names = [name for name in after.kernels if name in before.kernels]
    was, now = before.table().align(after.table(), fill_value=0)
    was, now = was.loc[names], now.loc[names]
    said = (was.astype(str) + " > " + now.astype(str)).where(was != now, "")
    return said.loc[(was != now).any(axis=1), (was != now).any()]


def render(ledger: Ledger) -> str:
    frame = ledger.table()
    spilling = frame[frame["spills"] + frame["stack bytes"] > 0][_ORDER[:3]]
    main = frame[frame.index.str.contains(_MAIN)]
    targets = {}
    for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
        of_target = main[main.index.str.startswith(target)]
        targets[target] = of_target.loc[:, (of_target != 0).any()].reset_index(names="kernel")
    spilling = spilling.reset_index(names="kernel")
    return fill(PAGE.name, triton=ledger.triton, spilling=spilling, targets=targets)

"""Launch configurations beside those of the table (triton_topk/kernels/config.py) are timed, each as the kernel alone.

    python -m bench.sweep --compile 8        # on any machine: fills Triton's cache for sm_90, in 8 processes
    python -m bench.sweep --out sweep.jsonl  # on a GPU: a line for each configuration, as it is measured
    python -m bench.sweep --page             # sweep.md, of the sweep-*.jsonl beside it in reports/

A table of configurations is made of what this finds; nothing is chosen when a loss is called.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from bench.ahead_of_time import Case
from bench.arguments import Parser
from bench.machine import commit, describe
from bench.sweep.page import PAGE, of_case, render
from bench.sweep.times import Launches, times
from bench.sweep.variants import CASES, compile_all, variants
from triton_topk.kernels.config import Config


def main(given: Sequence[str] | None = None) -> None:
    parser = Parser("bench.sweep", __doc__)
    parser.add_argument("-k", default="", help="only cases whose names match")
    parser.add_argument("--table", action="store_true", help="only the table's configurations")
    parser.add_argument("--compile", type=int, metavar="PROCESSES")
    parser.add_argument("--once", action="store_true", help="launch the table's, for a profiler")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("build/sweep.jsonl"))
    arguments = parser.parse_args(given)
    if arguments.page:
        PAGE.write_text(render(PAGE.parent))
        return
    most = 1 if arguments.table or arguments.once else None
    configs = {case: variants(case)[:most] for case in parser.matching(CASES, arguments.k)}
    device = torch.device("cuda")
    if arguments.compile:
        jobs = [(case, config) for case, tried in configs.items() for config in tried]
        compile_all(jobs, arguments.compile)
    elif arguments.once:
        for case, (config,) in configs.items():
            print(case, flush=True)
            Launches(case, device)(config)
        torch.cuda.synchronize()
    else:
        measure_all(configs, arguments.out, device)


def measure_all(configs: dict[Case, list[Config]], file: Path, device: torch.device) -> None:
    """Write what was measured on what, then a line for each configuration as it is measured."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as out:
        header = {"machine": describe(device, ""), **commit()}
        print(json.dumps(header), file=out, flush=True)
        for case, tried in configs.items():
            found = list(times(case, tried, device))
            print(*map(json.dumps, found), sep="\n", file=out, flush=True)
            print(*of_case(pd.DataFrame(found)), sep=" | ", flush=True)


if __name__ == "__main__":
    main()

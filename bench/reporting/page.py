"""The page of a run: its sections in order, each with what is needed to read it."""

from __future__ import annotations

import re

from bench.reporting import faster, sections, tables
from bench.reporting.figures import drawings
from bench.reporting.fit import FIRST_K
from bench.reporting.markdown import folded
from bench.results import MOST_SHARE, MOST_SPREAD, MOST_WAITED, Run
from bench.rounds import TRIES

GLOSSARY = f"""\
smooth_svm, smooth_svm taylor (with `gradient="taylor"`), hard_svm, smooth_svm_lq and lq_loss are this package's. Divide
and conquer and summation are the two algorithms of `triton_topk/reference.py` for smooth_svm; authors' topk is the
code of Berrada, Zisserman and Kumar for it. F.cross_entropy, alone and under `torch.compile`, and Liger
cross_entropy have no k and do less, at every k the same; difftopk is another top-k loss, by sorting. Before each
measurement the result was compared with the definition in float64, where there is one here; what failed was not
timed. Times are medians of calls in rounds in which all implementations of the same shape, dtype and work took turns,
and with them a copy of the scores. A `?` marks what up to {TRIES} such tries did not make steady: its interquartile
range is above {MOST_SPREAD} of the median, its bytes moved more than {MOST_SHARE - 1:.0%} faster than those of the
copy, its threads waited for a CPU for more than {MOST_WAITED} of its time, or the copy was unsteady."""

ALONG_N = (
    "The number of scores is the same at every n: times in a row that are equal are linear in n."
)

SPEED = """\
GB/s, and in brackets the share of the copy bandwidth. The bytes are those that must move: the scores read once and,
backward, the gradient written once. The copy is of the same scores, in the same rounds; on a CPU its caches may hold
both. The figure, of a GPU, leaves out what has k and is not this package's."""

KERNEL = """\
Microseconds of the kernel of the loss, and in brackets its share of the copy bandwidth: launched as in a step, to the
same tensors, in the same rounds. The rest of a step is PyTorch's, the divisor of the mean, the sum of the losses, the 1
that autograd begins with; and a kernel that finds that nothing is to be scaled."""

EXPONENTS = f"""\
Of time per row against n, and of time against k from k = {FIRST_K} on (k = 1 is cross-entropy): slope by linear
regression of logarithms ± its standard error (number of points, without those that have a `?`). 1 is proportional.
The upper half are the larger values, where what does not depend on k weighs less. Along n what a call costs is shared
by equally many scores."""

ERRORS = """\
The largest that a measurement showed, and at which shape: of the loss relative, of the gradient relative to the largest
entry of its row. The scores are normally distributed: no hard cases."""

HOST = """\
Microseconds that the host takes for an eager call, forward + backward, beside the device's. Where the device takes
less, calls one after the other wait for the host."""

MEMORY = "Peak of what is allocated beyond the scores and the gradient."


def slug(run: Run) -> str:
    """The device in file names."""
    return re.sub("[^a-z0-9]+", "-", run.machine["name"].lower()).strip("-")


def file_stem(run: Run) -> str:
    return f"benchmark-{slug(run)}"


def page(run: Run) -> str:
    chapters = {
        "Where another implementation is faster": faster.section(run),
        "In short": sections.headline(run),
        "Time against n": _with_figures(run, "n", _after(ALONG_N, tables.times(run, "n"))),
        "Time against k": _with_figures(run, "k", tables.times(run, "k")),
        "Time against the batch": tables.times(run, "batch"),
        "Time at other shapes": tables.other_times(run),
        "Share of copy bandwidth": _with_figures(run, "copy", _after(SPEED, tables.bandwidth(run))),
        "The kernel alone": _after(KERNEL, tables.kernels(run)),
        "Ratio to others": _with_figures(run, "ratios", tables.compared(run)),
        "Memory": _after(MEMORY, tables.memory(run)),
        "Exponents": _after(EXPONENTS, sections.growth(run)),
        "Errors": _after(ERRORS, sections.errors(run)),
        "Host time": _after(HOST, sections.host(run)),
        "Left out": sections.left_out(run.left_out),
    }
    written = [f"## {title}\n\n{text}" for title, text in chapters.items() if text]
    title = f"# Benchmark: {run.machine['name']}"
    first = [sections.provenance(run), sections.busy(run), GLOSSARY]
    return "\n\n".join([title, *first, *written]) + "\n"


def image(run: Run, name: str, folder: str = "") -> str:
    what = {
        "n": "Time per score against the number of classes n",
        "k": "Time per score against k",
        "copy": "Share of the copy bandwidth against the number of classes n",
        "ratios": "Time of others over time of ours against the number of classes n",
    }
    figure, dtype = name.split("-")
    alt = f"{what[figure]} by implementation, {dtype}, {run.machine['name']}"
    return f"![{alt}]({folder}{file_stem(run)}-{name}.png)"


def _with_figures(run: Run, which: str, text: str) -> str:
    """Text below the figure of the main dtype, those of the other dtypes to be unfolded."""
    names = [name for name in drawings(run) if name.startswith(f"{which}-")]
    shown = [image(run, name) for name in names[:1]]
    hidden = [folded(f"Figure: {name.split('-')[1]}", image(run, name)) for name in names[1:]]
    return "\n\n".join([*shown, *hidden, *filter(None, [text])])


def _after(introduction: str, text: str) -> str:
    return text and f"{introduction}\n\n{text}"

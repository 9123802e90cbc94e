"""Figures of made-up runs: what is in them can be read."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from benchmark_json import K, N, cells, run
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text

from bench.implementations import IMPLEMENTATIONS
from bench.reporting.figures import COPY, PROPORTIONAL, drawings
from bench.reporting.labels import spread
from bench.results import Cell, Run

DTYPES = ("float32", "bfloat16")
NAMES = list(IMPLEMENTATIONS)


def spaced(cell: Cell) -> float:
    """Each implementation a little slower than the one before, so that ends of lines crowd."""
    return 1e-9 * cell.n * cell.batch * 1.02 ** NAMES.index(cell.implementation) * (cell.k or 1)


def equal(cell: Cell) -> float:
    return 1e-9 * cell.n * cell.batch


@pytest.fixture(scope="module", params=[spaced, equal])
def made_up(request: pytest.FixtureRequest) -> Run:
    return run(cells(DTYPES), request.param)


def labels(ax: Axes) -> dict[str, Annotation]:
    return {child.get_text(): child for child in ax.texts if isinstance(child, Annotation)}


def tick_labels(scale: Axis) -> list[Text]:
    low, high = sorted(scale.get_view_interval())
    ticks = [tick for tick in scale.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1 for tick in ticks if tick.label1.get_visible()]


def test_there_is_a_figure_of_each_for_each_dtype(made_up):
    names = {f"{figure}-{dtype}" for figure in ("n", "k", "copy", "ratios") for dtype in DTYPES}
    assert set(drawings(made_up)) == names


@pytest.mark.parametrize("name", ["n-float32", "k-bfloat16", "copy-float32", "ratios-float32"])
def test_texts_do_not_overlap_and_are_inside(made_up, name):
    figure = drawings(made_up)[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    # of the text alone: an annotation's own box has the line to its end as well
    boxes = [
        Text.get_window_extent(label, renderer)
        for ax in figure.axes
        for label in [*labels(ax).values(), *tick_labels(ax.xaxis), *tick_labels(ax.yaxis)]
    ]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1) for box in boxes)
    assert all(figure.bbox.containsy(box.y0) and figure.bbox.containsy(box.y1) for box in boxes)


@pytest.mark.parametrize(
    ("name", "count"),
    [("n-float32", 1), ("k-float32", 2), ("copy-float32", 1), ("ratios-float32", 2)],
)
def test_every_line_has_its_label(made_up, name, count):
    figure = drawings(made_up)[name]()
    assert len(figure.axes) == count
    for ax in figure.axes:
        assert len(labels(ax)) == len(ax.lines)
        assert set(labels(ax)) <= {*NAMES, COPY, PROPORTIONAL}
    assert figure.get_supxlabel()
    assert figure.get_supylabel()


def test_lines_are_what_was_measured():
    made_up = run(cells(["float32"]), spaced)
    figures = {name: draw() for name, draw in drawings(made_up).items()}

    def line(name: str, implementation: str, panel: int = 0):
        ax = figures[name].axes[panel]
        at = list(labels(ax)).index(implementation)
        return ax.lines[at].get_xdata(), ax.lines[at].get_ydata()

    x, y = line("n-float32", "smooth_svm")
    assert list(x) == sorted(N)
    assert y == pytest.approx([5.0] * len(x))  # nanoseconds
    x, y = line("k-float32", "smooth_svm", panel=1)
    assert list(x) == sorted(K)
    assert y == pytest.approx(x)
    x, y = line("copy-float32", "smooth_svm")
    # 8 bytes in 5 ns of the 2**21 in 200 microseconds of benchmark_json
    assert y == pytest.approx([100 * (8 / 5e-9) / (2**21 / 2e-4)] * len(x))
    x, y = line("ratios-float32", "F.cross_entropy")
    assert y == pytest.approx([1.02 ** NAMES.index("F.cross_entropy") / 5] * len(x))


@pytest.mark.parametrize("heights", [[0.5] * 5, [0, 0, 0.01, 1, 1], [0.3, 0.9, 0.1], [0.7]])
def test_spread(heights):
    gap = 0.15
    placed = spread(heights, gap)
    in_order = np.array(placed)[np.argsort(heights, stable=True)]

    assert (np.diff(in_order) >= gap - 1e-12).all()
    assert min(placed) >= 0
    assert max(placed) <= 1 + 1e-12


def test_spread_leaves_alone_what_is_apart():
    assert spread([0.1, 0.9, 0.5], 0.2) == pytest.approx([0.1, 0.9, 0.5])

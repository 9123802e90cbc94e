"""Figures of made-up runs: what is in them can be read."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from benchmark_json import MACHINE, K, N, cells, run
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from bench.implementations import IMPLEMENTATIONS
from bench.reporting.figures import COPY, PROPORTIONAL, STYLES, drawings
from bench.reporting.labels import spread
from bench.results import Cell, Run

DTYPES = ("float32", "bfloat16")
NAMES = list(IMPLEMENTATIONS)
GPU = MACHINE | {"kind": "cuda"}


def spaced(cell: Cell) -> float:
    """Each implementation a little slower than the one before, so that ends of lines crowd."""
    k = cell.k if IMPLEMENTATIONS[cell.implementation].has_k else 1
    return 1e-9 * cell.n * cell.batch * 1.02 ** NAMES.index(cell.implementation) * k


def equal(cell: Cell) -> float:
    return 1e-9 * cell.n * cell.batch


@pytest.fixture(scope="module", params=[spaced, equal])
def made_up(request: pytest.FixtureRequest) -> Run:
    return run(cells(DTYPES), request.param, machine=GPU)


def labels(ax: Axes) -> dict[str, Annotation]:
    return {child.get_text(): child for child in ax.texts if isinstance(child, Annotation)}


def tick_labels(scale: Axis) -> list[Text]:
    low, high = sorted(scale.get_view_interval())
    ticks = [tick for tick in scale.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1 for tick in ticks if tick.label1.get_visible()]


def test_there_is_a_figure_of_each_for_each_dtype(made_up):
    names = {f"{figure}-{dtype}" for figure in ("n", "k", "copy", "ratios") for dtype in DTYPES}
    assert set(drawings(made_up)) == names
    on_cpu = replace(made_up, machine=MACHINE)  # the copy may stay in the cache
    assert set(drawings(on_cpu)) == {name for name in names if not name.startswith("copy")}


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
    made_up = run(cells(["float32"]), spaced, machine=GPU)
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
    assert y == pytest.approx([25] * len(x))
    x, y = line("ratios-float32", "F.cross_entropy")
    assert y == pytest.approx([1.02 ** NAMES.index("F.cross_entropy") / 5] * len(x))


def test_what_was_measured_has_a_marker_which_is_hollow_where_unsteady():
    made_up = run(cells(["float32"]), spaced)
    unsteady = next(
        i for i, m in enumerate(made_up.measurements) if m.cell.implementation == "lq_loss"
    )
    made_up.measurements[unsteady] = replace(made_up.measurements[unsteady], spread=0.5)
    figures = {name: draw() for name, draw in drawings(made_up).items()}
    of_n = figures["n-float32"]
    of_k = figures["k-float32"].axes[0]
    once = of_k.lines[list(labels(of_k)).index("lq_loss")]  # along k, where nothing of it varies

    assert list(once.get_xdata()) == [5]
    for line, label in zip(of_k.lines, labels(of_k), strict=True):
        assert line.get_marker() == STYLES[label].marker
        assert bool(line.get_marker()) == (label != PROPORTIONAL)
    assert of_n.get_suptitle().endswith("(hollow: unsteady)") == (hollow(of_n) == 1)
    assert "hollow" not in figures["k-float32"].get_suptitle()
    assert hollow(figures["k-float32"]) == 0


def hollow(figure: Figure) -> int:
    return sum(len(dots.get_offsets()) for ax in figure.axes for dots in ax.collections)


# How the dichromats of Machado, Oliveira and Fernandes (2009) see linear RGB.
EYES = {
    "trichromat": np.eye(3),
    "protanope": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranope": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanope": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("ours", [True, False])
def test_colours_of_lines_can_be_told_apart(eyes, ours):
    """By their distance in CIELAB, of which 2 can just be seen; ours and others differ in their dashes."""
    styles = [STYLES[name] for name, i in IMPLEMENTATIONS.items() if i.ours == ours]
    seen = [cielab(style.colour, EYES[eyes]) for style in styles]

    assert len({style.line for style in styles}) == 1
    assert len({style.marker for style in styles}) == len(styles)
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 15


def cielab(colour: str, eyes: list[list[float]]) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = to_xyz @ (eyes @ linear).clip(0, 1) / [0.9505, 1, 1.089]
    x, y, z = (np.cbrt(c) if c > 0.008856 else 7.787 * c + 16 / 116 for c in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


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

"""Kernels broken on purpose, one line at a time: a sign, an index, a bound, a mask."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

KERNELS = Path("triton_topk/kernels")
_ACCURACY = "test_kernels.py::test_float32"
_LAYOUTS = "test_kernels.py::test_every_layout"
_TAYLOR = "test_kernels.py::test_taylor"
_LOSSES = "test_losses.py::test_every_layout"
_LARGEST = "test_losses.py::test_wherever_the_largest_are"
_HALF = "test_losses.py::test_half_precision"
_DIFFICULT = "test_losses.py::test_masked_nan_infinite_ignored_and_wrong_labels"
_DIFFICULT_SMOOTH = "test_kernels.py::test_masked_nan_infinite_ignored_and_wrong_labels"
_FACTORS = "test_losses.py::test_weight_normalizer_upstream_and_stride"
_LQ_TRUTH = "test_losses.py::test_lq_against_the_truth"
_HITS = "test_margins_and_hits.py::test_hits"
_MARGINS = "test_margins_and_hits.py::test_margins"
_SCALE = "test_launch.py::test_scale"
_AUTOGRAD = "test_kernels.py::test_autograd_through_the_kernel"
_ANY_PART = "test_parts.py::test_label_in_any_part"
_TIES = "test_parts.py::test_ties_in_several_parts_have_equal_gradients"
_SCALED_MERGE = "test_parts.py::test_parts_that_have_nothing_but_their_largest_scores"
_SCALED_PARTS = "test_parts.py::test_coefficients_that_have_to_be_scaled"
_EQUAL = "test_kernels.py::test_equal_scores_have_equal_gradients"
_FEWER = "test_kernels.py::test_fewer_classes_than_top_beside_ties_at_the_largest_tau"
_SCALED = "test_kernels.py::test_coefficients_that_have_to_be_scaled"


class Mutant(NamedTuple):
    file: str  # of KERNELS
    original: str  # in it exactly once
    replacement: str
    first: str  # of tests/interpreted, run before all others: the test that this most likely fails

    def apply(self, root: Path) -> None:
        path = root / KERNELS / self.file
        text = path.read_text()
        assert text.count(self.original) == 1, f"{self.original!r} is not once in {self.file}"
        path.write_text(text.replace(self.original, self.replacement))


MUTANTS = [
    Mutant(
        "select.py", "range(0, COUNT - REST, STEP)", "range(STEP, COUNT - REST, STEP)", _LAYOUTS
    ),
    Mutant("select.py", "if REST > 0:", "if REST < 0:", _LAYOUTS),
    Mutant("select.py", ">= j * HEIGHT - i", ">= j * HEIGHT", _LAYOUTS),
    Mutant("select.py", "== label_at[:, None]", "== label_at[:, None] + 1", _LAYOUTS),
    Mutant("select.py", "taken | (1 << slot), taken", "taken | 1, taken", _LAYOUTS),
    Mutant("select.py", "order // 16, order", "order, order", _LARGEST),
    Mutant("select.py", "maxima[s + 1], maxima[s]", "maxima[s], maxima[s]", _LARGEST),
    Mutant(
        "select.py", "return queue[len(new) :] + new", "return new + queue[len(new) :]", _LAYOUTS
    ),
    Mutant(
        "select.py",
        "here = start[None, :] + (slot // SLOTS * LANES + slot % SLOTS)",
        "here = start[None, :] + slot",
        _LAYOUTS,
    ),
    Mutant("candidates.py", "& (column < n)", "& (column <= n)", _LAYOUTS),
    Mutant("candidates.py", "(index < COUNT * HEIGHT)", "(index < COUNT * HEIGHT - 1)", _LAYOUTS),
    Mutant("candidates.py", "index % HEIGHT // FOLD * LANES", "index % HEIGHT * LANES", _HALF),
    Mutant(
        "candidates.py", "(column != label[:, None])", "(column != label[:, None] + 1)", _LAYOUTS
    ),
    Mutant("lists.py", "x = tl.minimum(lists[j], x)", "x = lists[j]", _LAYOUTS),
    Mutant("lists.py", "len(lists) < DEPTH:", "len(lists) < DEPTH - 1:", _LAYOUTS),
    Mutant("lists.py", "b[SIZE - 1 - i]", "b[i]", _LAYOUTS),
    Mutant("lists.py", "i + DISTANCE < SIZE:", "i + DISTANCE < SIZE - 1:", _LAYOUTS),
    Mutant("lists.py", "_in_order(x, places, 2, 1)", "_in_order(x, places, 2, 2)", _LARGEST),
    Mutant("lists.py", "_in_order(x, places, 4, 1)", "_in_order(x, places, 4, 4)", _LARGEST),
    Mutant("lists.py", "places[i] << (4 * i)", "places[i] << (3 * i)", _LAYOUTS),
    Mutant("lists.py", "swap = x[i] > other", "swap = x[i] >= other", _LAYOUTS),
    Mutant(
        "top.py", "(candidates[i] >= floor[:, None])", "(candidates[i] > floor[:, None])", _ACCURACY
    ),
    Mutant("top.py", "tl.where(tied, floor,", "tl.where(tied & False, floor,", _EQUAL),
    Mutant("top.py", "G += each[:, None]", "G += 0.0 * each[:, None]", _LOSSES),
    Mutant("top.py", "range(tl.max(tl.max(count, axis=1), axis=0))", "range(1)", _LAYOUTS),
    Mutant("blocks.py", "inside = (column < n - at)", "inside = (column <= n - at)", _LAYOUTS),
    Mutant("blocks.py", "parts = even + odd", "parts = odd + even", _LAYOUTS),
    Mutant(
        "blocks.py",
        "tl.static_range(s + SLOTS, VEC, SLOTS)",
        "tl.static_range(s + SLOTS, VEC - 1, SLOTS)",
        _HALF,
    ),
    Mutant(
        "blocks.py", "tl.where(taken[v * SLOTS + i % SLOTS], 0.0, parts[i])", "parts[i]", _LOSSES
    ),
    Mutant("blocks.py", "totals[INDEX + 1 :]", "totals[:INDEX]", _LOSSES),
    Mutant("blocks.py", 'float("inf"), p[:, None]', "p[:, None], p[:, None]", _LAYOUTS),
    Mutant("polynomial.py", "out = (r[0] + e,)", "out = (r[0],)", _LAYOUTS),
    Mutant(
        "polynomial.py", "tl.fma(a[i], b[j - 1 - i], 0.0)", "tl.fma(a[i], b[j - i], 0.0)", _LAYOUTS
    ),
    Mutant("polynomial.py", "tl.fma(e, r[j - 1], r[j])", "tl.fma(e, r[j - 1], -r[j])", _LAYOUTS),
    Mutant("smooth_svm.py", "tl.fma(x - p, rate, 0.0)", "tl.fma(p - x, rate, 0.0)", _LAYOUTS),
    Mutant("smooth_svm.py", "large = x >= floor[:, None]", "large = x > floor[:, None]", _LAYOUTS),
    Mutant("smooth_svm.py", "total % MANY - ALL", "total % MANY * 0", _LAYOUTS),
    Mutant("smooth_svm.py", "tl.maximum(total % MANY - ALL, 0)", "total % MANY - ALL", _FEWER),
    Mutant("smooth_svm.py", "more.to(tl.int32) * MANY", "more.to(tl.int32) * 0", _EQUAL),
    Mutant("smooth_svm.py", "tl.max(equal, axis=0), 1)", "tl.max(equal, axis=0), 2)", _LAYOUTS),
    Mutant("smooth_svm.py", "tl.maximum(equal - j, 0)", "equal", _LAYOUTS),
    Mutant("smooth_svm.py", "(1.0 / (j + 1))", "(1.0 / j)", _LAYOUTS),
    Mutant("smooth_svm.py", "equal, e * tl.exp2(log2_s))", "equal, e)", _SCALED),
    Mutant(
        "smooth_svm.py",
        'tl.where(last > float("-inf"), last, LOWEST)',
        'tl.where(last > float("-inf"), last, 0.0)',
        _ACCURACY,
    ),
    Mutant("smooth_svm.py", "if SCALED or i >= K - 1:", "if SCALED or i >= K:", _LAYOUTS),
    Mutant("smooth_svm.py", "b[i - LEFT_OUT])", "b[0])", _LAYOUTS),
    Mutant("smooth_svm.py", "return -tl.ceil(", "return tl.ceil(", _SCALED),
    Mutant("smooth_svm.py", "power = power * s", "power = power", _SCALED),
    Mutant("smooth_svm.py", "(v[i] - p) * rate + log2_s", "(v[i] - p) * rate", _SCALED),
    Mutant(
        "smooth_svm.py",
        "a = a + (tl.exp2(-tl.maximum(d, 0.0)),)",
        "a = a + (tl.exp2(-d),)",
        _SCALED,
    ),
    Mutant("smooth_svm.py", "0.0 if J <= K else", "0.0 if J > K else", _TAYLOR),
    Mutant("smooth_svm.py", "S[J] < _TINY", "S[J] < 0.0", _LAYOUTS),
    Mutant("smooth_svm.py", "tl.where(here < own_a,", "tl.where(here <= own_a,", _LAYOUTS),
    Mutant("smooth_svm.py", "tl.where(here > own_b,", "tl.where(here >= own_b,", _LAYOUTS),
    Mutant("smooth_svm.py", "(first - second)", "(first + second)", _LAYOUTS),
    Mutant("smooth_svm.py", "Q_below - Q)", "Q - Q_below)", _TAYLOR),
    Mutant("smooth_svm.py", "u[len(u) - 1 - i]", "u[len(u) - 2 - i]", _TAYLOR),
    Mutant(
        "smooth_svm.py",
        "product = -product * u[K - 1 - m]",
        "product = product * u[K - 1 - m]",
        _LAYOUTS,
    ),
    Mutant("smooth_svm.py", "u[K - 1] - u[K - 1 - m]", "u[K - 1] - u[K - m]", _LAYOUTS),
    Mutant("smooth_svm.py", "(total + coefficients", "(total - coefficients", _LAYOUTS),
    Mutant("lq.py", "minus_log_p >= cut", "minus_log_p <= cut", _LOSSES),
    Mutant("lq.py", "p_to_q == 1.0, 1.0,", "p_to_q == 1.0, 0.5,", _LQ_TRUTH),
    Mutant("lq.py", "x > 1.0,", "x > 1000.0,", _LQ_TRUTH),
    Mutant("lq.py", "slope = p_to_q * miss", "slope = miss", _LOSSES),
    Mutant("logistic.py", "tl.log(sum_) + (odds - (sum_ - one)) * each", "tl.log(sum_)", _LQ_TRUTH),
    Mutant("logistic.py", "tl.where(positive, small, 1.0)", "1.0", _LOSSES),
    Mutant("logistic.py", "x = tl.where(x < _UNDERFLOW, _UNDERFLOW, x)", "x = x", _DIFFICULT),
    Mutant("logistic.py", "tl.maximum(log_odds, 0.0)", "log_odds", _LOSSES),
    Mutant(
        "each_score.py",
        "(x == p[:, None]).to(x.dtype), x)",
        "(x == p[:, None]).to(x.dtype), 0.0)",
        _DIFFICULT,
    ),
    Mutant("rows.py", 'tl.where(s_y == float("inf"), float("nan"), s_y)', "s_y", _DIFFICULT),
    Mutant("rows.py", "(label < n)", "(label <= n)", _DIFFICULT),
    Mutant("loss.py", "own % COLUMNS // VEC * VEC + own % SLOTS", "own % COLUMNS", _HALF),
    Mutant("rows.py", "v[K - 1]) + 0.0 * largest, few", "v[K - 1]), few", _DIFFICULT_SMOOTH),
    Mutant("loss.py", "r = select.where(taken[s], before, r)", "r = r", _LAYOUTS),
    Mutant("rows.py", "loss = (1.0 - share) * lq_loss", "loss = share * lq_loss", _LOSSES),
    Mutant(
        "rows.py",
        "(p.to(tl.float64) - s_y.to(tl.float64))) * inverse",
        "(p - s_y)) * inverse",
        _ACCURACY,
    ),
    Mutant(
        "rows.py", "trivial = 0.0 * (r[0] + r[1] + s_y)", "trivial = 0.0 * s_y", _DIFFICULT_SMOOTH
    ),
    Mutant(
        "rows.py",
        "svm_g = share * tl.where(few, trivial, svm_g / K)",
        "svm_g = share * svm_g / K",
        _DIFFICULT_SMOOTH,
    ),
    Mutant("rows.py", "tl.where(loss > 0, 1.0", "tl.where(loss >= 0, 1.0", _DIFFICULT),
    Mutant("loss.py", "(p, g / tl.maximum(ties, 1.0))", "(p, g)", _LOSSES),
    Mutant(
        "loss.py",
        "tl.where(total == 0, lq_g, lq_g / total)",
        "lq_g / total",
        _DIFFICULT,
    ),
    Mutant(
        "loss.py",
        "scale = scale / tl.load(normalizer)",
        "scale = scale * tl.load(normalizer)",
        _FACTORS,
    ),
    Mutant("loss.py", "upstream + row * upstream_stride", "upstream + row", _AUTOGRAD),
    Mutant(
        "loss.py",
        "column, width, ACC, b == LAST, VECTORS)",
        "column, width, ACC, False, VECTORS)",
        _LAYOUTS,
    ),
    Mutant("loss.py", "n * (part == 0)", "n * (part == 1)", _HITS),
    Mutant("rows.py", "(label < first + width)", "(label < first)", _ANY_PART),
    Mutant("rows.py", "label - first, -1)", "label, -1)", _ANY_PART),
    Mutant("rows.py", "(part + 1) * blocks // PARTS", "part * blocks // PARTS + 1", _LOSSES),
    Mutant("summary.py", "v[i] >= floor[:, None]", "v[i] > floor[:, None]", _LOSSES),
    Mutant("summary.py", "(others[DEGREE + 3] > 0) &", "(others[DEGREE + 3] < 0) &", _TIES),
    Mutant("summary.py", "e_floor * tl.exp2(log2_s))", "e_floor)", _SCALED_MERGE),
    Mutant("summary.py", "equal * e_floor, K)", "0.0 * e_floor, K)", _SCALED_MERGE),
    Mutant("summary.py", "rate - others[DEGREE]", "rate", _SCALED_PARTS),
    Mutant("summary.py", "exp2(shift + log2_s[:, None])", "exp2(shift)", _SCALED_PARTS),
    Mutant("summary.py", "e[i] * tl.exp2(log2_s)", "e[i] * tl.exp2(0.0 * log2_s)", _SCALED_PARTS),
    Mutant("summary.py", "first += e[i]", "first += 0.0 * e[i]", _SCALED_MERGE),
    Mutant("summary.py", "v[K - 1] == pivot, others", "v[K - 1] <= pivot, others", _TIES),
    Mutant("summary.py", "(v[i] > v[K - 1])", "(v[i] >= v[K - 1])", _TIES),
    Mutant("summary.py", "tl.fma(others[DEGREE + 1], weight, 0.0)", "others[DEGREE + 1]", _LOSSES),
    Mutant("summary.py", "index < COUNT * HEIGHT", "index < HEIGHT", _LOSSES),
    Mutant("loss.py", "& (active == 0)", "& (active != 0)", _DIFFICULT),
    Mutant("loss.py", "(-g).to(gradient", "g.to(gradient", _LOSSES),
    Mutant("loss.py", "row * margins_row_stride", "row", _MARGINS),
    Mutant("loss.py", "label * margins_class_stride", "label", _MARGINS),
    Mutant("loss.py", "margin += K * tl.load", "margin += tl.load", _MARGINS),
    Mutant("loss.py", "counted & (rank < K)", "counted & (rank <= K)", _HITS),
    Mutant("loss.py", "counted = active & (loss == loss)", "counted = active", _HITS),
    Mutant("rank_of_label.py", "(v[i] > s_y)", "(v[i] >= s_y)", _HITS),
    Mutant(
        "rank_of_label.py",
        "column[None, :] + offset < label",
        "column[None, :] + offset <= label",
        _HITS,
    ),
    Mutant("rank_of_label.py", "column[None, :] + offset", "column[None, :]", _HITS),
    Mutant("rank_of_label.py", "tied |= ", "tied &= ", _HITS),
    Mutant("rank_of_label.py", "return rank + tl.sum(before, axis=1)", "return rank", _HITS),
    Mutant(
        "rows.py",
        "(tl.full([1], tau, tl.float64) * svm_loss).to(ACC)",
        "tl.full([1], tau, ACC) * svm_loss.to(ACC)",
        "test_kernels.py::test_a_loss_in_range_whose_share_of_tau_is_not",
    ),
    Mutant("scale.py", "if f != 1.0:", "if f > 1.0:", _SCALE),
    Mutant("scale.py", "< size - start", "< size - start - 1", _SCALE),
    Mutant("scale.py", "there = gradient + start", "there = gradient", _SCALE),
    Mutant("scale.py", "range(first, size, PROGRAMS * BLOCK)", "range(first, size, size)", _SCALE),
]

"""Each loss is told once: its name, its parameters, their check, and how its operators spell them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from types import NoneType
from typing import (
    Any,
    ClassVar,
    NamedTuple,
    ParamSpec,
    Self,
    TypedDict,
    TypeVar,
    get_args,
    get_type_hints,
)

from torch import Tensor
from torch.compiler import is_compiling

from triton_topk import arguments
from triton_topk.arguments import UNKNOWN, Backend, Gradient, Reduction, Weight
from triton_topk.shard import ClassShard

P = ParamSpec("P")
T = TypeVar("T")
L = TypeVar("L", bound="Loss")


def _remembered(check: Callable[P, T]) -> Callable[P, T]:
    """Make a check of numbers and words keep its answers: a training loop asks the same every time."""
    # typed: of 1, 1.0 and True, which are equal, not all need be right
    remember = lru_cache(maxsize=1024, typed=True)(check)

    @wraps(check)
    def answer(*args: P.args, **options: P.kwargs) -> T:
        # a module's constructor, by name, and torch.compile, some of whose numbers are symbols, ask once
        if options or is_compiling():
            return check(*args, **options)
        try:
            return remember(*args)
        except TypeError:
            # wrong, or without a hash, of which the check can say what is wrong
            pass
        return check(*args, **options)

    return answer


class Options(TypedDict, total=False):
    """Every loss has these options, for the types of the public functions."""

    weight: Weight | None
    ignore_index: int
    reduction: Reduction
    normalizer: float | Tensor | None
    backend: Backend | None
    shard: ClassShard | None


class Form(NamedTuple):
    """A form says what a loss needs of a row's scores; see summary.py."""

    k: int = 1  # the pivot is the k-th largest
    top: int = 1  # how many of the largest are treated one by one
    degree: int = 0  # of the polynomial of the others
    rate: float = 1.0  # 1 / (k tau)
    total: str = ""  # "ties" counts scores equal to the pivot, "exponentials" sums those of all


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss has particular parameters, by position, and those that every loss has, by keyword.

    `checked` makes a loss of a user's arguments, or raises an error that names the wrong one.
    """

    name: ClassVar[str]  # of the public function and of the operators
    checked: ClassVar[Callable[..., Loss]]

    ignore_index: int = -100
    backend: str | None = None
    hits: int | None = None  # k of the top-k hits, if they are asked for

    @classmethod
    def parameters(cls) -> tuple[str, ...]:
        """Return the names of the parameters, in the order of the operators' arguments."""
        return (*cls.__match_args__, "ignore_index", "backend", "hits")

    @property
    def values(self) -> tuple[Any, ...]:
        """Return the parameters as the operators take them."""
        return tuple([getattr(self, name) for name in self.parameters()])

    @property
    def form(self) -> Form:
        """Return what the loss needs of the scores of a part of the classes."""
        raise NotImplementedError

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> Self:
        """Make a loss of an operator's arguments."""
        return cls(**dict(zip(cls.parameters(), values, strict=True)))

    @classmethod
    def schema(cls) -> str:
        """Return the parameters in the language of operator schemas."""
        types = get_type_hints(cls)

        def spell(annotation: Any) -> str:
            optional = NoneType in get_args(annotation)
            base = get_args(annotation)[0] if optional else annotation
            return f"{base.__name__}{'?' if optional else ''}"

        return ", ".join(f"{spell(types[name])} {name}" for name in cls.parameters())


def _checked_options(
    k: int, ignore_index: int, reduction: str, backend: str | None, return_topk_hits: bool
) -> dict[str, Any]:
    """Check the options of every loss; return those that are parameters."""
    ignore_index = arguments.ignore_index(ignore_index)
    arguments.choice("reduction", reduction)
    arguments.choice("backend", backend)
    hits = arguments.k_of_hits(return_topk_hits, k)
    return {"ignore_index": ignore_index, "backend": backend, "hits": hits}


class HardSVMOptions(Options, total=False):
    margin: float | Tensor


class SmoothSVMOptions(HardSVMOptions, total=False):
    tau: float
    gradient: Gradient
    order: int | None


@dataclass(frozen=True)
class SmoothSVM(Loss):
    """The smooth top-k SVM loss is that of `triton_topk.smooth_svm`."""

    name = "smooth_svm"

    k: int
    tau: float
    margin: float  # of every row, beside what a tensor of margins has for it
    order: int | None = None  # p of the Taylor-type gradient; None: the exact gradient

    @property
    def top_size(self) -> int:
        """Return how many of the largest scores are treated one by one on a CPU, so that the rest amplifies the
        rounding of its gradient polynomial little, and for k > 50, where that would be too much, not at all; see
        docs/algorithm.md."""
        if self.k > 50:
            return 2 * self.k
        return self.k + min(max(0, self.k - 5), max(10, self.k // 2))

    def series_threshold(self, eps: float) -> float:
        """Return the e u_k at which the Taylor-type series, cut off at (e u_k)^-p, is as good as the recursion, which
        rounds by eps (e u_k)^k; see docs/algorithm.md."""
        return float(eps ** (-1 / (self.k + (self.order or 0))))

    @property
    def form(self) -> Form:
        k = self.k
        return Form(k, self.top_size, k + (self.order or 1) - 1, 1 / (k * self.tau))

    @staticmethod
    @_remembered
    def checked(
        k: int,
        tau: float,
        margin: float,
        gradient: str,
        order: int | None,
        ignore_index: int,
        reduction: str,
        backend: str | None,
        return_topk_hits: bool,
        n_classes: int = UNKNOWN,
    ) -> SmoothSVM:
        k = arguments.k(k, n_classes)
        options = _checked_options(k, ignore_index, reduction, backend, return_topk_hits)
        tau, margin = arguments.tau(tau), arguments.margin(margin)
        p = arguments.taylor_order(order, gradient, k, n_classes)
        # by name: torch.compile of PyTorch 2.11 adds the defaults of what is given by position
        return SmoothSVM(k, tau, margin, order=p, **options)


@dataclass(frozen=True)
class HardSVM(Loss):
    """The top-k hinge loss is that of `triton_topk.hard_svm`."""

    name = "hard_svm"

    k: int
    margin: float

    @property
    def form(self) -> Form:
        return Form(self.k, self.k, total="ties")

    @staticmethod
    @_remembered
    def checked(
        k: int,
        margin: float,
        ignore_index: int,
        reduction: str,
        backend: str | None,
        return_topk_hits: bool,
        n_classes: int = UNKNOWN,
    ) -> HardSVM:
        k = arguments.k(k, n_classes)
        options = _checked_options(k, ignore_index, reduction, backend, return_topk_hits)
        return HardSVM(k, arguments.margin(margin), **options)


class LqOptions(Options, total=False):
    truncation: float | None
    k: int


@dataclass(frozen=True)
class Lq(Loss):
    """The generalised cross-entropy is that of `triton_topk.lq_loss`."""

    name = "lq_loss"

    q: float
    truncation: float | None = None

    @staticmethod
    @_remembered
    def checked(
        q: float,
        truncation: float | None,
        ignore_index: int,
        reduction: str,
        backend: str | None,
        return_topk_hits: bool = False,
        k: int = 1,
        n_classes: int = UNKNOWN,
    ) -> Lq:
        # without hits k has no meaning, and no largest value
        k = arguments.k(k, n_classes) if return_topk_hits is True else arguments.integer("k", k)
        options = _checked_options(k, ignore_index, reduction, backend, return_topk_hits)
        return Lq(arguments.share("q", q), truncation=arguments.truncation(truncation), **options)

    @property
    def form(self) -> Form:
        return Form(top=self.hits or 1, total="exponentials")

    @property
    def truncated_loss(self) -> float:
        """Return the loss at p_y = truncation."""
        assert self.truncation is not None
        cut = -math.log(self.truncation)
        # (1 - t^q) / q as -log t (1 - exp(-x)) / x, where the last factor goes to 1 with q
        x = self.q * cut
        return cut * (-math.expm1(-x) / x if x > 0 else 1.0)


class SmoothSVMLqOptions(SmoothSVMOptions, total=False):
    mix: float
    truncation: float | None


@dataclass(frozen=True)
class Mixture(Loss):
    """The mixture is mix * SmoothSVM + (1 - mix) * Lq."""

    name = "smooth_svm_lq"

    k: int
    tau: float
    margin: float
    order: int | None
    q: float
    truncation: float | None
    mix: float

    @staticmethod
    @_remembered
    def checked(
        k: int,
        q: float,
        mix: float,
        tau: float,
        margin: float,
        truncation: float | None,
        gradient: str,
        order: int | None,
        ignore_index: int,
        reduction: str,
        backend: str | None,
        return_topk_hits: bool,
        n_classes: int = UNKNOWN,
    ) -> Loss:
        k = arguments.k(k, n_classes)
        options = _checked_options(k, ignore_index, reduction, backend, return_topk_hits)
        tau, margin = arguments.tau(tau), arguments.margin(margin)
        q, mix = arguments.share("q", q), arguments.share("mix", mix)
        p = arguments.taylor_order(order, gradient, k, n_classes)
        loss = Mixture(k, tau, margin, p, q, arguments.truncation(truncation), mix, **options)
        # A part without a share must not count where it is infinite or NaN.
        return loss.lq if mix == 0 else loss.svm if mix == 1 else loss

    @property
    def form(self) -> Form:
        return self.svm.form._replace(total="exponentials")

    @property
    def svm(self) -> SmoothSVM:
        return self._part(SmoothSVM)

    @property
    def lq(self) -> Lq:
        return self._part(Lq)

    def _part(self, loss: type[L]) -> L:
        return loss.of(tuple([getattr(self, name) for name in loss.parameters()]))


LOSSES: dict[str, type[Loss]] = {loss.name: loss for loss in (SmoothSVM, HardSVM, Lq, Mixture)}

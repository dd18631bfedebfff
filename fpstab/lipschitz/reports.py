"""The Lipschitz constant of a network from above and below, at a price that is known before it is paid."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fpstab.lipschitz.bounds import (
    SOFTMAX,
    Form,
    Head,
    LipschitzBound,
    check_arguments,
    lipschitz_bound,
    seconds_to_solve,
)
from fpstab.lipschitz.extraction import extract
from fpstab.lipschitz.norms import spectral_product
from fpstab.results import Status
from fpstab.rounding import multiply_up

_SAMPLED_RTOL = 1e-2  # of each Jacobian's norm
_QUANTITIES = ("optimum_lower", "slopes_lower", "rel_gap", "eclipse_fast", "exact")


@dataclass(frozen=True, slots=True, eq=False)
class LipschitzReport:
    """The Lipschitz constant of a network, from above and below.

    Attributes:
        value: A certified bound: of LipSDP, or the product of norms where that was not to be solved.
        spectral_product: The certified product of norms.
        sampled_lower: Largest norm of a Jacobian at the points; nan if unknown.
        bound: The bound with all that is known around it, or `None`.
        status: `"ok"` if there is a bound, else that of the analysis.
    """

    value: float
    spectral_product: float
    sampled_lower: float
    bound: LipschitzBound | None
    status: Status

    def scalars(self) -> dict[str, float]:
        """What a monitor logs; nan for what is unknown."""
        scalars = dict.fromkeys(_QUANTITIES, math.nan) | ({} if self.bound is None else self.bound.scalars())
        return scalars | {
            "value": self.value,
            "spectral_product": self.spectral_product,
            "sampled_lower": self.sampled_lower,
            "certified": float(math.isfinite(self.value)),
            "solved": float(self.bound is not None),
        }


def lipschitz_report(
    target: nn.Module | Callable[..., Any],
    points: Tensor | None = None,
    *,
    form: Form = "neuron",
    head: Head | None = None,
    rtol: float = 1e-4,
    time_limit: float | None = None,
    affords: Callable[[float], bool] | None = None,
) -> LipschitzReport:
    """Bound a network's Lipschitz constant in l2, by LipSDP if that may be solved (paper 5 §III).

    Args:
        target: A module, or a bound method of one.
        points: Where to look at Jacobians, `[B, *shape]`; `None`: nowhere, and the first layer tells the shape.
        form: See `lipschitz_bound`.
        head: `"softmax"`: with a softmax on top.
        rtol: Relative gap that the solver aims at; a curve over training needs no more than the default.
        time_limit: Seconds after which the solver stops; what it has by then is certified.
        affords: Asked whether the semidefinite program may be solved, with the seconds that it is expected to take;
            where it may not, the bound is the product of norms. `None`: it may.

    Raises:
        ValueError: If an argument is out of range, or a weight is not finite.
        TypeError: If the target is no module, or a weight is not real.
        UnsupportedLayer: If a layer cannot be expressed.

    >>> network = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> solved = lipschitz_report(network)
    >>> product = lipschitz_report(network, affords=lambda seconds: False)
    >>> solved.value < product.value == solved.spectral_product
    True
    """
    from fpstab.lipschitz.attained import attained_norm

    check_arguments(form, head, rtol=rtol, time_limit=time_limit)
    problem = extract(target, points)
    sampled = math.nan if points is None else attained_norm(target, points, head=head, rtol=_SAMPLED_RTOL)
    if affords is not None and not affords(seconds_to_solve(problem)):
        product = spectral_product(problem)
        if head == "softmax":
            product = multiply_up(product, SOFTMAX)
        return LipschitzReport(product, product, sampled, None, _status(product, Status()))
    bound = lipschitz_bound(problem, form=form, head=head, rtol=rtol, time_limit=time_limit, throw=False)
    return LipschitzReport(bound.value, bound.spectral_product, sampled, bound, _status(bound.value, bound.status))


def _status(value: float, status: Status) -> Status:
    """A bound is a bound, though not the best one: `rel_gap` says how good it is."""
    if not math.isfinite(value):
        return status if not status.ok else Status("not_certified", "The product of norms leaves float64.")
    if status.ok:
        return status
    return Status(message="" if status.code == "inaccurate" else f"The bound is certified, but: {status.code}.")

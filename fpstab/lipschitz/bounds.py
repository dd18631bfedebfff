"""The Lipschitz constant of a network in l2: one call, the least of all certified bounds."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from numpy.typing import ArrayLike
from torch import Tensor, nn

from fpstab.lipschitz import certificates, conic
from fpstab.lipschitz.candidates import Form as Form
from fpstab.lipschitz.candidates import Search, search
from fpstab.lipschitz.norms import affinely_independent, softmax_constant
from fpstab.lipschitz.problem import Feedforward, General, Problem, Slopes
from fpstab.results import AnalysisError, Status
from fpstab.rounding import ldexp_up, multiply_up

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Head = Literal["softmax"]

SOFTMAX = 0.5
"""The Lipschitz constant of softmax in l2."""

_EXACT = 2e-8
_OVERHEAD, _SECONDS = 0.2, 1.4e-8  # of a solution, for the size n of the matrix inequality: a + b n³


@dataclass(frozen=True, slots=True, eq=False)
class LipschitzBound:
    """A bound L: ‖f(x) − f(y)‖₂ ≤ L ‖x − y‖₂ for all x, y, and what is known around it.

    Attributes:
        value: L, the least of all certified candidates; inf if there is none, or it leaves float64.
        exact: Whether some slopes within the given ones make a Jacobian whose norm is `value`, to a relative 2e-8:
            no better bound follows from weights and slopes.
        certified: Whether `value` is proved, whatever rounding and the solver did. True unless value is inf.
        optimum_lower: No more than what the chosen form could reach with perfect arithmetic, nor than value; 0 if
            unknown.
        sampled_lower: The largest norm of a Jacobian of the module at sampled points, a lower bound of its true
            constant; nan if weights were given (they do not say what happens at a point).
        slopes_lower: The largest norm of a Jacobian that a search over slopes found: some network with these
            weights and slopes has at least this constant. 0 if unknown.
        method: Where `value` comes from: `"zero"`, `"linear"`, `"nonnegative"`, `"neuron"`, `"layer"`,
            `"eclipse_fast"`, `"closed_form"` (other multipliers without a solver), `"spectral_product"`, `"softmax"`,
            `"none"`.
        status: `"ok"`; `"inaccurate"` (rel_gap is above rtol); `"time_limit"`; `"solver_failed"` (the value is what
            could be certified without it); `"too_large"` (no matrix inequality was formed); `"not_certified"` (inf:
            nothing bounds it, e.g. an implicit layer without a proof of a unique equilibrium); `"overflow"` (inf).
        rel_gap: value / optimum_lower − 1; inf if unknown, 0 if there was nothing to optimise.
        lipsdp: The bound of LipSDP in the chosen form, certified; inf if it was not computed.
        multipliers: T ≥ 0, one tensor `[n_i]` a hidden layer, with which `verify` proves the value of LipSDP; empty
            if the value needs none.
        spectral_product: The product of the layers' spectral norms and largest slopes, certified.
        eclipse_fast: The closed form of ECLipsE-Fast, certified, the better of the two orientations; inf if there is
            none (it is for chains).
        head: The factor by which a head was taken into account: ½ for softmax, else 1. (`verify` knows no heads:
            divide.)
        seconds: Time that the computation took.
    """

    value: float
    exact: bool
    certified: bool
    optimum_lower: float
    sampled_lower: float
    slopes_lower: float
    method: str
    status: Status
    rel_gap: float
    lipsdp: float
    multipliers: tuple[Tensor, ...]
    spectral_product: float
    eclipse_fast: float
    head: float
    seconds: float

    def scalars(self) -> dict[str, float]:
        """What a monitor logs; nan for what is unknown."""
        return {
            "value": self.value,
            "optimum_lower": self.optimum_lower if self.optimum_lower > 0.0 else math.nan,
            "sampled_lower": self.sampled_lower,
            "slopes_lower": self.slopes_lower,
            "rel_gap": self.rel_gap,
            "spectral_product": self.spectral_product,
            "eclipse_fast": self.eclipse_fast,
            "lipsdp": self.lipsdp,
            "certified": float(self.certified),
            "exact": float(self.exact),
            "seconds": self.seconds,
        }

    def table(self) -> list[dict[str, Any]]:
        """One row a number: its name, its value, and what it says."""
        source = f"certified upper bound ({self.method})" if self.certified else f"no bound: {self.status}"
        rows = [
            ("value", self.value, source + (", exact for these slopes" if self.exact else "")),
            ("spectral_product", self.spectral_product, "certified: product of the layers' norms"),
            ("eclipse_fast", self.eclipse_fast, "certified: closed form, no solver"),
            ("lipsdp", self.lipsdp, "certified: the semidefinite program"),
            ("optimum_lower", self.optimum_lower, "what this form of the bound could reach at best"),
            ("slopes_lower", self.slopes_lower, "no bound from these weights and slopes is below"),
            ("sampled_lower", self.sampled_lower, "the network's true constant is not below (at sampled points)"),
        ]
        return [{"quantity": name, "value": value, "meaning": meaning} for name, value, meaning in rows]

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the bounds from above and below on a logarithmic scale."""
        from fpstab.lipschitz.plots import plot_bound

        axes: Axes = plot_bound(self, ax)
        return axes


def seconds_to_solve(problem: Problem) -> float:
    """Roughly how long the native solver takes for LipSDP of a network, on one core.

    >>> from fpstab.lipschitz.problem import feedforward
    >>> seconds_to_solve(feedforward([[[0.5]], [[2.0]]], (0.0, 1.0))) < 1
    True
    """
    if isinstance(problem, Feedforward):
        hidden, ends = sum(problem.sizes[1:-1]), (*problem.sizes[:2], *problem.sizes[-2:])
    else:
        hidden, ends = problem.n_hidden, (problem.n_in, problem.n_out)
    return _OVERHEAD + _SECONDS * (hidden + min(ends)) ** 3 if hidden else _OVERHEAD


def lipschitz_bound(
    network: nn.Module | Problem | Sequence[ArrayLike | Tensor],
    *,
    form: Form = "neuron",
    slopes: str | Slopes | Sequence[Slopes] = "auto",
    head: Head | None = None,
    backend: str = "native",
    rtol: float = 1e-7,
    time_limit: float | None = None,
    points: Tensor | None = None,
    throw: bool = True,
) -> LipschitzBound:
    """A certified upper bound of a network's Lipschitz constant in l2 (LipSDP, Fazlyab et al. 2019; paper 5 §III).

    The semidefinite program of LipSDP is solved, and whatever the solver returns goes through a certificate with
    outward rounding: the value is proved, never a solver's number. It is the least of LipSDP, ECLipsE-Fast in both
    orientations and the product of spectral norms.

    Args:
        network: A module (read by `fpstab.lipschitz.extraction`), a `Feedforward` or `General` problem, or weights
            (W_1, …, W_L), each `[n_i, n_{i−1}]`. Biases play no part.
        form: `"neuron"`: one multiplier a neuron; `"layer"`: one a layer, looser. (LipSDP-*Network* is not offered:
            it is not a bound.)
        slopes: `"auto"` reads them from a module's activations. With weights they must be given, as a guess would
            make the bound worthless: (alpha, beta) for all neurons, or one pair for each hidden layer.
        head: `"softmax"`: the network with a softmax on top (½-Lipschitz; sharper when the network is linear).
        backend: `"native"`: the interior-point method, first-order beyond a size of 2000; `"first_order"`;
            `"cvxpy"` or `"cvxpy:SOLVER"`, e.g. `"cvxpy:SCS"`.
        rtol: Relative gap between the value and the optimum of the form to aim at.
        time_limit: Seconds after which the solver stops; the certificates come on top.
        points: `[B, *input]` where the module's Jacobian is sampled from below; some Gaussian points if None. They also
            tell the shape of an input, where the first layer does not.
        throw: Raise where there is no finite bound; otherwise say so in the status.

    Raises:
        ValueError: If an argument is unknown or out of range, weights are not finite, shapes do not chain, slopes
            are missing or alpha > beta. Names the layer.
        TypeError: If weights are not real floating-point numbers, or `network` is none of the above.
        ModuleNotFoundError: If the solver of `backend` is not installed; says how to install it.
        AnalysisError: If `throw` and no finite bound was found.

    >>> bound = lipschitz_bound([[[1.0], [1.0]], [[1.0, -1.0]]], slopes=(0.0, 1.0))  # relu(x) - relu(x - 1)
    >>> bound.certified, 1.0 <= bound.value < 1.0 + 1e-8
    (True, True)
    """
    begun = time.perf_counter()
    check_arguments(form, head, backend, rtol, time_limit)
    deadline = None if time_limit is None else time.monotonic() + time_limit
    sampled = math.nan
    if isinstance(network, nn.Module):
        from fpstab.lipschitz.attained import attained_norm, gaussian_points
        from fpstab.lipschitz.extraction import extract, sample_shape

        problem: Problem = extract(network, points, slopes=slopes)
        if points is None:
            points = gaussian_points(sample_shape(network))
        sampled = attained_norm(network, points, head=head) * (1.0 - 1e-12)  # less what its rounding may add
    elif isinstance(network, (Feedforward, General, Sequence)) and not isinstance(network, str):
        problem = certificates.as_problem(network, slopes)
    else:
        raise TypeError(f"A {type(network).__name__} is no network: expected a module, a problem or a list of weights.")
    found = search(problem, form, backend, rtol, deadline)
    bound = _result(found, problem, sampled, head, rtol, time.perf_counter() - begun)
    if throw and math.isinf(bound.value):
        raise AnalysisError(bound.status)
    return bound


def check_arguments(
    form: str, head: str | None, backend: str = "native", rtol: float = 1e-7, time_limit: float | None = None
) -> None:
    """Refuse what `lipschitz_bound` cannot be asked for.

    Raises:
        ValueError: If an argument is unknown or out of range.
        ModuleNotFoundError: If the solver of `backend` is not installed.
    """
    if str(form).startswith("network"):
        raise ValueError(
            f"form={form!r} is refused: LipSDP-Network couples neurons and is not a bound. For relu(x) - relu(x - 1), "
            "whose constant is 1, it returns 0. Use form='neuron'."
        )
    if form not in get_args(Form):
        raise ValueError(f"form={form!r} is unknown: expected 'neuron' or 'layer'.")
    if head not in (None, "softmax"):
        raise ValueError(f"head={head!r} is unknown: expected None or 'softmax'.")
    if backend not in ("native", "first_order", "cvxpy") and not str(backend).startswith("cvxpy:"):
        raise ValueError(
            f"backend={backend!r} is unknown: expected 'native', 'first_order', 'cvxpy' or 'cvxpy:SOLVER'."
        )
    if backend.startswith("cvxpy"):
        conic.choose_solver(backend, 1)
    if not (1e-12 <= rtol < 1.0):
        raise ValueError(f"rtol={rtol!r} is out of range: expected 1e-12 <= rtol < 1.")
    if time_limit is not None and not time_limit > 0.0:
        raise ValueError(f"time_limit={time_limit!r} is out of range: expected seconds > 0, or None.")


def _result(
    search: Search, problem: Problem, sampled: float, head: Head | None, rtol: float, seconds: float
) -> LipschitzBound:
    """The least candidate and what is known of it, with the head on top."""
    method = min(search.candidates, key=lambda name: search.candidates[name], default="none")
    value = search.candidates.get(method, math.inf)
    lower = max(search.lower, search.slopes_lower)
    status = search.status
    exact = value == 0.0 or method == "linear" or (value < math.inf and search.slopes_lower >= value * (1.0 - _EXACT))
    gap = 0.0 if search.closed else (value / lower - 1.0 if lower > 0.0 else math.inf)
    if math.isinf(value):
        method, exact, gap = "none", False, math.inf
        if status.code in ("ok", "inaccurate", "solver_failed"):
            implicit = isinstance(problem, General) and problem.implicit
            status = (
                Status(
                    "not_certified",
                    "No multipliers prove that the implicit layer has a unique equilibrium: nothing bounds it.",
                )
                if implicit
                else Status("overflow", "The bound leaves float64: rescale the weights.")
            )
    elif status.ok and gap > rtol:
        status = Status("inaccurate", f"value / optimum_lower − 1 is {gap:.1e}, above rtol = {rtol:g}.")
    factor = 1.0
    if head == "softmax":
        factor = SOFTMAX
        value = _times(value, factor)
        if search.linear is not None:
            sharper = ldexp_up(softmax_constant(search.linear.weight), search.linear.exponent)
            if sharper < value:
                value, method, factor = sharper, "softmax", SOFTMAX
        if search.linear is not None:  # what stands above is all that there is
            exact = value == 0.0 or (method == "softmax" and affinely_independent(search.linear.weight.mid))
            lower = value * (1.0 - 1e-9) if exact else 0.0
        else:
            exact, lower = value == 0.0, lower * factor
        search.slopes_lower = lower if exact else 0.0
    return LipschitzBound(
        value=value,
        exact=exact,
        certified=value < math.inf,
        optimum_lower=min(lower, value),
        sampled_lower=sampled,
        slopes_lower=search.slopes_lower,
        method=method,
        status=status,
        rel_gap=max(gap, 0.0),
        lipsdp=_times(search.lipsdp, factor),
        multipliers=search.multipliers if method in ("neuron", "layer", "eclipse_fast", "closed_form") else (),
        spectral_product=_times(search.product, factor),
        eclipse_fast=_times(search.eclipse, factor),
        head=factor,
        seconds=seconds,
    )


def _times(x: float, factor: float) -> float:
    return x if factor == 1.0 else multiply_up(x, factor)

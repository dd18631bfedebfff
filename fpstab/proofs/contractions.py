"""A certified Lipschitz bound below 1 on a self-map proves that it is a contraction (paper 2 §V)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor, nn

from fpstab.lipschitz import Feedforward, General, LipschitzBound, lipschitz_bound
from fpstab.lipschitz.attained import attained_norm, gaussian_points
from fpstab.lipschitz.bounds import Form
from fpstab.lipschitz.extraction import extract, sample_shape
from fpstab.lipschitz.problem import Slopes, feedforward
from fpstab.maps import first_tensor
from fpstab.results import Status
from fpstab.rounding import up


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """What was proved of a map Φ of a space to itself.

    Attributes:
        holds: Whether it is proved that Φ is a contraction.
        value: A proved bound of its Lipschitz constant in the Euclidean norm; inf if there is none.
        statement: What is proved, in words; where nothing is, why.
        hypothesis: What the statement is about.
        domain: Where it holds.
        refuted: Whether a Jacobian of norm 1 or more was seen, so that no proof of this kind can exist. (Φ may still
            have a unique, attracting fixed point.) Seen in floating point: an observation, not a proof.
        bound: The bound with all that is known around it.
        status: `"ok"`, also where nothing is proved; else that of the bound.
    """

    holds: bool
    value: float
    statement: str
    hypothesis: str
    domain: str
    refuted: bool
    bound: LipschitzBound
    status: Status

    @property
    def margin(self) -> float:
        """1 − value; not positive where nothing is proved."""
        return 1.0 - self.value

    def distance(self, residual: float) -> float:
        """How far a point x with ‖Φ(x) − x‖₂ ≤ `residual` is from the fixed point at most: residual / (1 − value).

        The residual must be a bound of the exact one: add what its own rounding may have lost.

        Raises:
            ValueError: If nothing is proved, or the residual is negative or nan.

        >>> certify_contraction([[[0.5]]], slopes=(0.0, 1.0)).distance(1e-3) < 2.001e-3
        True
        """
        if not self.holds:
            raise ValueError("Nothing is proved of this map, so nothing is known of a fixed point.")
        if not residual >= 0:
            raise ValueError(f"residual={residual!r}: expected a number ≥ 0.")
        gap = math.nextafter(1.0 - self.value, 0.0)
        return up(residual / gap) if residual and gap > 0 else math.inf if residual else 0.0

    def scalars(self) -> dict[str, float]:
        """What a monitor logs."""
        return {"holds": float(self.holds), "value": self.value, "refuted": float(self.refuted)}


def certify_contraction(
    net: nn.Module | Feedforward | General | Sequence[ArrayLike | Tensor],
    example: Any = None,
    *,
    input_shape: Sequence[int] | None = None,
    slopes: str | Slopes | Sequence[Slopes] = "auto",
    form: Form = "neuron",
    backend: str = "native",
    time_limit: float | None = None,
) -> Certificate:
    """Try to prove that a network, as a map of a space to itself, is a contraction in the Euclidean norm.

    By Banach's theorem it then has exactly one fixed point, which attracts every orbit. The proof is a certified bound
    below 1 of its Lipschitz constant (`fpstab.lipschitz.lipschitz_bound`): it holds for all inputs, not for those on a
    grid. Where it fails nothing is said against the network: a map can have one attracting fixed point without being
    a contraction.

    Args:
        net: A module, a `Feedforward` or `General` problem, or weights (W_1, …, W_L).
        example: A batch in a module's input shape; see `fpstab.lipschitz.extraction.extract`. The Jacobian is also
            looked at there.
        input_shape: The shape of one sample instead.
        slopes: Of the activations, if `net` is weights: see `lipschitz_bound`.
        form: Of the bound: `"neuron"` or `"layer"`.
        backend: Of the bound.
        time_limit: Seconds for the bound's solver.

    Raises:
        UnsupportedLayer: If a module has a layer that no bound is known of.
        ValueError: If input and output differ in size, or an argument makes no sense.
        TypeError: As `lipschitz_bound`.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))
    >>> with torch.no_grad():
    ...     _ = [nn.init.constant_(p, 0.2) for p in net.parameters()]
    >>> certificate = certify_contraction(net)
    >>> certificate.holds, round(certificate.value, 6)
    (True, 0.6)
    """
    if isinstance(net, nn.Module):
        problem = extract(net, example, input_shape=input_shape, slopes=slopes)
    elif isinstance(net, Feedforward | General):
        problem = net
    elif isinstance(net, Sequence):
        problem = feedforward(net, slopes)
    else:
        raise TypeError(f"A {type(net).__name__} is no network: expected a module, a problem or a list of weights.")
    n_in, n_out = (
        (problem.sizes[0], problem.sizes[-1]) if isinstance(problem, Feedforward) else (problem.n_in, problem.n_out)
    )
    if n_in != n_out:
        raise ValueError(
            f"A contraction maps a space to itself, but {_called(net)} maps {n_in} values to {n_out}. Give the part of "
            "the network that maps a space to itself."
        )
    bound = lipschitz_bound(problem, form=form, backend=backend, time_limit=time_limit, throw=False)
    if isinstance(net, nn.Module):
        points = gaussian_points(sample_shape(net, example, input_shape)) if example is None else first_tensor(example)
        bound = replace(bound, sampled_lower=attained_norm(net, points))
    holds = bound.certified and bound.value < 1
    refuted = not holds and bound.sampled_lower >= 1
    return Certificate(
        holds=holds,
        value=bound.value,
        statement=_statement(bound, holds, refuted),
        hypothesis=_hypothesis(net, problem),
        domain=f"all of R^{n_in}",
        refuted=refuted,
        bound=bound,
        status=bound.status if math.isinf(bound.value) else Status(message=bound.status.message),
    )


def _statement(bound: LipschitzBound, holds: bool, refuted: bool) -> str:
    if holds:
        return (
            f"‖Φ(x) − Φ(y)‖₂ ≤ {_printed_up(bound.value)} ‖x − y‖₂ for all x and y: Φ has exactly one fixed point x*, "
            f"and ‖Φᵏ(x) − x*‖₂ ≤ {_printed_up(bound.value)}ᵏ ‖x − x*‖₂ for every x and k."
        )
    if math.isinf(bound.value):
        return f"Nothing is proved: there is no finite bound ({bound.status})."
    why = (
        f"A Jacobian of norm {bound.sampled_lower:.6g} was seen, so Φ is no contraction in this norm; it may be one in another, or "
        "have a unique attracting fixed point all the same."
        if refuted
        else "That does not say that Φ is none."
    )
    return f"Not proved: the certified bound of the Lipschitz constant is {bound.value:.6g}, not below 1. {why}"


def _printed_up(value: float) -> str:
    """Seven digits, rounded up; all of them where that would be 1."""
    digits = math.ceil(value * 1e7) / 1e7
    return f"{digits:.7f}" if digits < 1 else repr(value)


def _hypothesis(net: Any, problem: Feedforward | General) -> str:
    what = "the network in evaluation mode (dropout off, batch norms with their running statistics), " if isinstance(
        net, nn.Module
    ) else "the network "  # fmt: skip
    which = (
        "where the equation of its equilibrium, which is proved to have exactly one solution for each input, is solved, "
        if isinstance(problem, General) and problem.implicit
        else ""
    )
    return f"Φ is {what}{which}in real arithmetic with the stored weights, taken as exact numbers."


def _called(net: Any) -> str:
    return type(net).__name__ if isinstance(net, nn.Module) else "the network"

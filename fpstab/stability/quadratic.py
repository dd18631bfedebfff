"""Quadratic Lyapunov functions V(x) = xᵀPx: found by semidefinite programs, proved afterwards without a solver."""

import importlib
import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fpstab.jacobian.chains import Dense
from fpstab.rounding import Array, Ball
from fpstab.stability.certificates import (
    LARGEST,
    MAX_VERTICES,
    StabilityCertificate,
    is_positive,
    judged,
    keeps_origin,
    neuron_slopes,
    printed_up,
    product_ball,
    refused,
    slope_vertices,
)

Kind = Literal["sector", "contraction"]

MAX_ROWS = 64
"""Rows of the matrix inequality up to which it is attempted."""

_MAX_INPUTS = 32
_AIM = 1.0 - 2e-4  # the rate that is asked of the solver
_ROUNDS, _WORST = 12, 8  # of cutting planes, and how many at a time


def multiplier_certificate(layers: Sequence[Dense], kind: Kind, domain: str, hypothesis: str) -> StabilityCertificate:
    """R3: P ≻ 0 and a multiplier ≥ 0 for each neuron with V(x⁺) ≤ r²V(x), r < 1, by the slopes of neurons alone.

    `"sector"`: for σ(z)/z, without biases: V decreases towards the origin. `"contraction"`: for slopes of chords:
    V(f(x) − f(y)) decreases. P and the multipliers come from cvxpy; r is then proved with bounds on all rounding.
    """
    name = f"R3-{kind}"
    if why := _obstacle(layers, kind):
        return refused(name, why, hypothesis)
    n = layers[0].weight.shape[1]
    rows = n + sum(len(layer.weight) for layer in layers) - (n if layers[-1].activation is None else 0)
    if rows > MAX_ROWS or n > _MAX_INPUTS:
        return refused(
            name, f"the inequality has {rows} rows and P {n}; at most {MAX_ROWS} and {_MAX_INPUTS}", hypothesis
        )
    system = _Stacked(layers, kind == "sector")
    found = _solve_multipliers(system)
    rate = math.inf if found is None else system.least_rate(*found)
    return _certificate(name, rate, kind, hypothesis, domain)


def vertex_certificate(layers: Sequence[Dense], kind: Kind, domain: str, hypothesis: str) -> StabilityCertificate:
    """R4: one P ≻ 0 with A_DᵀPA_D ⪯ r²P for A_D = D_L W_L … D_1 W_1 at every vertex D of the box of slopes.

    f(x) = A_D x (or f(x) − f(y) = A_D(x − y)) for some D in the box, and V(A_D x) is convex in the slopes of each layer,
    so the vertices decide. That none is found is no sign of instability.
    """
    name = f"R4-{kind}"
    if why := _obstacle(layers, kind):
        return refused(name, why, hypothesis)
    vertices = slope_vertices(layers, kind == "sector")
    if vertices is None:
        return refused(name, f"more than {MAX_VERTICES} vertices", hypothesis)
    if layers[0].weight.shape[1] > _MAX_INPUTS:
        return refused(name, f"more than {_MAX_INPUTS} inputs", hypothesis)
    balls = [product_ball(layers, vertex) for vertex in vertices]
    rate = _common_rate(balls)
    return _certificate(name, rate, kind, hypothesis, domain)


def decreases(P: Array, A: Ball, rate: float) -> bool:
    """Whether AᵀPA ⪯ rate²P is proved for every matrix in the ball."""
    quadratic = A.T @ (Ball(P) @ A)
    bound = Ball(P).scale_columns(np.full(len(P), rate)).scale_columns(np.full(len(P), rate))
    return is_positive(bound + Ball(-quadratic.mid, quadratic.radius))


def _obstacle(layers: Sequence[Dense], kind: Kind) -> str:
    if kind == "sector" and (why := keeps_origin(layers)):
        return why
    low, high = neuron_slopes(layers, kind == "sector")
    return "" if np.isfinite(low).all() and np.isfinite(high).all() else "an activation has slopes without bound"


def _certificate(name: str, rate: float, kind: Kind, hypothesis: str, domain: str) -> StabilityCertificate:
    if math.isinf(rate):
        why = "Not proved: no quadratic Lyapunov function was found. That does not say that there is none."
        return StabilityCertificate(name, False, rate, why, hypothesis, domain)
    printed = printed_up(rate)
    text = (
        f"V(f(x)) ≤ {printed}² V(x) with V(x) = xᵀPx: the origin is globally exponentially stable."
        if kind == "sector"
        else f"V(f(x) − f(y)) ≤ {printed}² V(x − y) with V(x) = xᵀPx: f has exactly one fixed point, which attracts all orbits."
    )
    return judged(name, rate, text, hypothesis, domain)


class _Stacked:
    """The quadratic forms in ξ = (x, y_1, …, y_L), y_k = σ_k(W_k y_{k−1}); a last linear layer has no y of its own."""

    def __init__(self, layers: Sequence[Dense], sector: bool) -> None:
        self.n = layers[0].weight.shape[1]
        self.linear_output = layers[-1].activation is None and len(layers) > 1
        self.layers = layers[:-1] if self.linear_output else layers
        sizes = [self.n, *(len(layer.weight) for layer in self.layers)]
        self.ends = np.cumsum([0, *sizes]).tolist()
        self.rows = self.ends[-1]
        self.weights = [layer.weight.cpu().numpy() for layer in self.layers]
        self.low, self.high = neuron_slopes(self.layers, sector)
        self.C = np.zeros((self.n, self.rows))
        self.C[:, self.ends[-2] :] = layers[-1].weight.cpu().numpy() if self.linear_output else np.eye(sizes[-1])

    def neurons(self) -> "list[tuple[Array, Array]]":
        """For each layer the rows that give v = W y_{k−1} `[m, N]` and y_k `[m, N]` from ξ."""
        pairs = []
        for k, W in enumerate(self.weights):
            before, own, stop = self.ends[k], self.ends[k + 1], self.ends[k + 2]
            V, Y = np.zeros((len(W), self.rows)), np.zeros((len(W), self.rows))
            V[:, before:own], Y[:, own:stop] = W, np.eye(stop - own)
            pairs.append((V, Y))
        return pairs

    def least_rate(self, P: Array, T: Array) -> float:
        """The least r that P and T prove, rounded up; inf if none below 1."""
        if not is_positive(Ball(P)):
            return math.inf
        fixed = self._fixed(P, T)
        low, high = 0.0, _AIM
        if not self._proves(P, fixed, high):
            high = LARGEST * (1.0 - 1e-9)
            if not self._proves(P, fixed, high):
                return math.inf
        for _ in range(24):
            middle = (low + high) / 2
            low, high = (low, middle) if self._proves(P, fixed, middle) else (middle, high)
        return high

    def _fixed(self, P: Array, T: Array) -> Ball:
        """−CᵀPC − Σ of the neurons' forms: what does not depend on r."""
        C = Ball(self.C)
        total = C.T @ (Ball(-P) @ C)
        start = 0
        for V, Y in self.neurons():
            own = slice(start, start + len(V))
            # Σ t (y − αv)(y − βv), by the two factors as balls
            left = Ball(Y) + Ball(-V).T.scale_columns(self.low[own]).T
            right = Ball(Y) + Ball(-V).T.scale_columns(self.high[own]).T
            form = left.T.scale_columns(T[own]) @ right
            total = total + Ball(form.mid / 2, _half(form)) + Ball(form.mid.T / 2, _half(form.T))
            start += len(V)
        return total

    def _proves(self, P: Array, fixed: Ball, rate: float) -> bool:
        block = Ball(P).scale_columns(np.full(self.n, rate)).scale_columns(np.full(self.n, rate))
        mid, radius = np.zeros((self.rows, self.rows)), np.zeros((self.rows, self.rows))
        mid[: self.n, : self.n] = block.mid
        radius[: self.n, : self.n] = 0.0 if block.radius is None else block.radius
        return is_positive(fixed + Ball(mid, radius))


def _half(ball: Ball) -> Array:
    return np.zeros_like(ball.mid) if ball.radius is None else ball.radius


def _solve_multipliers(system: _Stacked) -> tuple[Array, Array] | None:
    """P and multipliers with the largest slack at the rate that is aimed at."""
    cp = _cvxpy()
    n, rows = system.n, system.rows
    P, T, slack = cp.Variable((n, n), symmetric=True), cp.Variable(len(system.low), nonneg=True), cp.Variable()
    E = np.eye(n, rows)
    forms, start = [], 0
    for V, Y in system.neurons():
        own = slice(start, start + len(V))
        left, right = Y - system.low[own, None] * V, Y - system.high[own, None] * V
        forms.append((left[:, :, None] * right[:, None, :] + right[:, :, None] * left[:, None, :]) / 2)
        start += len(V)
    K = np.concatenate(forms).reshape(len(system.low), rows * rows).T
    M = _AIM**2 * (E.T @ P @ E) - system.C.T @ P @ system.C + cp.reshape(K @ T, (rows, rows), order="C")
    constraints = [(M + M.T) / 2 >> slack * np.eye(rows), *_normalised(P, slack)]
    if not _solve(cp.Problem(cp.Maximize(slack), constraints), slack):
        return None
    return _symmetric(P), np.maximum(np.asarray(T.value, dtype=float), 0.0)


def _normalised(P: Any, slack: Any) -> list[Any]:
    """P ⪰ slack·I with trace n."""
    cp = _cvxpy()
    n = P.shape[0]
    return [P >> slack * np.eye(n), cp.sum(cp.multiply(np.eye(n), P)) == n, slack <= 1]


def _symmetric(P: Any) -> Array:
    value: Array = np.asarray(P.value, dtype=np.float64)
    return np.asarray((value + value.T) / 2, dtype=np.float64)


def _common_rate(balls: Sequence[Ball]) -> float:
    """The rate of one quadratic function for all matrices, proved for each; the worst ones are added one after another."""
    cp = _cvxpy()
    matrices = np.stack([ball.mid for ball in balls])
    if not np.isfinite(matrices).all():
        return math.inf
    n = matrices.shape[1]
    if float(np.abs(np.linalg.eigvals(matrices)).max()) >= _AIM:  # a vertex that grows: there is no such function
        return math.inf
    size = np.linalg.norm(matrices, axis=(1, 2))
    chosen = set(np.argsort(-size)[:_WORST].tolist())
    for _ in range(_ROUNDS):
        P, slack = cp.Variable((n, n), symmetric=True), cp.Variable()
        constraints = _normalised(P, slack)
        for index in sorted(chosen):
            A = matrices[index]
            form = _AIM**2 * P - A.T @ P @ A
            constraints.append((form + form.T) / 2 >> slack * np.eye(n))
        if not _solve(cp.Problem(cp.Maximize(slack), constraints), slack):
            return math.inf
        value = _symmetric(P)
        rates = _rates(value, matrices)
        if float(rates.max()) <= _AIM * (1.0 + 1e-9):
            return _proved_rate(value, balls, float(rates.max()))
        worst = [int(i) for i in np.argsort(-rates)[:_WORST] if int(i) not in chosen]
        if not worst:
            return _proved_rate(value, balls, float(rates.max()))
        chosen |= set(worst)
    return math.inf


def _rates(P: Array, matrices: Array) -> Array:
    """The operator norms in the norm of P `[V]`; inf if P is not positive."""
    try:
        R = np.linalg.cholesky(P).T
    except np.linalg.LinAlgError:
        return np.full(len(matrices), math.inf)
    return np.asarray(np.linalg.norm(R @ matrices @ np.linalg.inv(R), 2, axis=(1, 2)))


def _proved_rate(P: Array, balls: Sequence[Ball], rate: float) -> float:
    if not (math.isfinite(rate) and is_positive(Ball(P))):
        return math.inf
    for step in (1e-10, 1e-8, 1e-6):
        raised = max(rate, 1e-12) * (1.0 + step)
        if raised >= LARGEST:
            return math.inf
        if all(decreases(P, ball, raised) for ball in balls):
            return raised
    return math.inf


def _cvxpy() -> Any:
    """Slow to import; and its type information lacks half of its functions."""
    return importlib.import_module("cvxpy")


def _solve(problem: Any, slack: Any) -> bool:
    """Whether a solution with slack was found."""
    cp = _cvxpy()
    try:
        with warnings.catch_warnings():  # an inaccurate solution is as good as another: what counts is the proof
            warnings.simplefilter("ignore")
            problem.solve(solver=cp.CLARABEL)
    except (cp.error.SolverError, ValueError, ArithmeticError):
        return False
    return problem.status in ("optimal", "optimal_inaccurate") and float(slack.value) > 0

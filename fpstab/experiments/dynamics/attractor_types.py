"""Figures 6, 7 and 8 of paper 3: six kinds of attractors, the regions of ρ(A*) and the spectra that belong to them."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from fpstab.experiments.claims import Claim, Finding, Study
from fpstab.experiments.dynamics.measures import SHARE_RULE, Draw, Panel, by_share, draw_model, look, values_of
from fpstab.experiments.dynamics.models import LinearMap, Model
from fpstab.experiments.dynamics.pictures import (
    Painter,
    caption,
    draw_panels,
    paint_cloud,
    paint_portrait,
    paint_regions,
)

_LEAST = 8
_NAMES = {
    "single": "single equilibrium",
    "multiple": "multiple equilibria",
    "line": "line attractor",
    "cycle": "limit cycle",
    "chaotic": "chaotic attractor",
    "unstable": "unstable dynamics",
}
TYPES: dict[str, Model] = {
    "single": Model(LinearMap("Gershgorin, real", (0.0, 1.0)), 1, "ReLU", False),
    "multiple": Model(LinearMap("Gershgorin, real", (-1.5, -1.1)), 1, "SELU", True),
    "line": Model(LinearMap("Perron-Frobenius", (1.0, 1.0)), 1, "ReLU", False),
    "cycle": Model(LinearMap("Spectral", (0.99, 1.1)), 8, "Tanh", False),
    "chaotic": Model(LinearMap("Spectral", (0.99, 1.1)), 8, "SELU", False),
    "unstable": Model(LinearMap("Gershgorin, complex", (0.99, 1.1)), 1, "Softplus", False),
}
"""Table 1's models of Figures 6 to 8, by the label of the attractor that they are said to have."""

HAS: dict[str, Claim] = {
    label: Claim(
        3, "Figure 6", f"{model} shows a {_NAMES[label]}." if label != "unstable" else f"{model} is unstable.",
        f"{_LEAST} draws or more: the label '{label}' occurs (reproduced), does not occur (not reproduced"
        + (
            "; corrected if more than half of the draws have a cycle, periodic or quasi-periodic, with no positive exponent)"
            if label == "chaotic"
            else ")"
        ),
    )
    for label, model in TYPES.items()
}  # fmt: skip
NECESSARY = Claim(
    3, "Figure 7", "ρ(A*) ≤ 1 everywhere is necessary for stability: a globally stable network has no point with ρ(A*) > 1.",
    "among all draws with one fixed point that takes all starts, none has ρ(A*) > 1 + 1e-9 at a point of the grid "
    f"(reproduced), one has (not reproduced); fewer than {_LEAST} of them: inconclusive",
)  # fmt: skip
UNSTABLE_RADII = Claim(
    3, "Figure 7", "The unstable network has regions of ρ(A*) > 1.",
    f"a point of the grid with ρ(A*) > 1, of draws of that model labelled 'unstable'; {SHARE_RULE}",
)  # fmt: skip
LINE_ONE = Claim(
    3, "Figure 8", "The line attractor has 1 as an eigenvalue.",
    f"an eigenvalue of A* within 1e-6 of 1 at a quarter of the points or more, for the line's model; {SHARE_RULE}",
)  # fmt: skip
INSIDE = Claim(
    3, "Figure 8", "The eigenvalues of the single equilibrium's network lie in the unit disc.",
    f"all eigenvalues of A* at 576 points, for the single equilibrium's model; {SHARE_RULE}",
)  # fmt: skip


def dynamics_fig6(*, seed: int = 0, draws: int = 8, activated: bool = True) -> Study:
    """Figure 6: phase portraits of the six kinds of attractors. Each picture is of the first draw with the label, or of the commonest one.

    Args:
        seed: The first.
        draws: Networks of each kind.
        activated: Whether the output is.

    Raises:
        ValueError: If there is no draw.
    """
    drawn = _draw(seed, draws, activated)
    findings = tuple(_occurs(label, found) for label, found in drawn.items())
    return _study(drawn, findings, ("arrow", "orbit", "tail", "fixed point"), paint_portrait)


def dynamics_fig7(*, seed: int = 0, draws: int = 8, size: int = 61, activated: bool = True) -> Study:
    """Figure 7: ρ(A*) in the plane for the networks of Figure 6.

    Args:
        seed: The first.
        draws: Networks of each kind.
        size: Points a side.
        activated: Whether the output is.

    Raises:
        ValueError: If there is no draw.
    """
    drawn = _draw(seed, draws, activated)
    stable = [draw for found in drawn.values() for draw in found if _takes_all(draw)]
    broken = [draw for draw in stable if draw.rho_max > 1 + 1e-9]
    said = f"{len(broken)} of {len(stable)} stable networks have ρ(A*) > 1 somewhere" + (
        f", the first {broken[0].model} with {broken[0].rho_max:.3g}." if broken else "."
    )
    verdict = "not reproduced" if broken else "reproduced" if len(stable) >= _LEAST else "inconclusive"
    unstable = [draw for draw in drawn["unstable"] if draw.label == "unstable"]
    findings = [
        NECESSARY.found(verdict, said, float(len(broken)), None, len(stable)),  # type: ignore[arg-type]
    ]
    if unstable:
        hits = [draw.rho_max > 1 for draw in unstable]
        findings.append(by_share(UNSTABLE_RADII, hits, f"max ρ(A*) up to {max(d.rho_max for d in unstable):.3g}."))
    else:
        findings.append(UNSTABLE_RADII.found("inconclusive", "No draw is unstable.", None, None, draws))
    return _study(drawn, tuple(findings), ("region",), paint_regions, size)


def dynamics_fig8(*, seed: int = 0, draws: int = 8, activated: bool = True) -> Study:
    """Figure 8: the eigenvalues of A* for the networks of Figure 6.

    Args:
        seed: The first.
        draws: Networks of each kind.
        activated: Whether the output is.

    Raises:
        ValueError: If there is no draw.
    """
    drawn = _draw(seed, draws, activated)
    ones = [float(((draw.eigenvalues - 1).abs().amin(1) <= 1e-6).double().mean()) for draw in drawn["line"]]
    tops = [draw.rho_max for draw in drawn["single"]]
    findings = (
        by_share(INSIDE, [top <= 1 for top in tops], f"max ρ(A*) up to {max(tops):.3g}."),
        by_share(LINE_ONE, [share >= 0.25 for share in ones], f"At {min(ones):.0%} to {max(ones):.0%} of the points."),
    )
    return _study(drawn, findings, ("eigenvalue",), paint_cloud)


def _draw(seed: int, draws: int, activated: bool) -> dict[str, list[Draw]]:
    return {label: draw_model(model, seed=seed, draws=draws, activated=activated) for label, model in TYPES.items()}


def _occurs(label: str, draws: Sequence[Draw]) -> Finding:
    found = Counter(draw.label for draw in draws)
    n = len(draws)
    said = f"Labels of {n} draws: {', '.join(f'{name} {number}' for name, number in found.most_common())}."
    exponents = [draw.lyapunov for draw in draws if draw.label == "cycle"]
    if label == "chaotic" and exponents:
        said += f" Lyapunov exponents of the cycles up to {max(exponents):.2g}."
    if n < _LEAST:
        return HAS[label].found("inconclusive", said, found[label] / n, None, n)
    if found[label]:
        return HAS[label].found("reproduced", said, found[label] / n, None, n)
    cycles = [draw for draw in draws if draw.label == "cycle" and draw.lyapunov <= max(4 * draw.lyapunov_error, 3e-3)]
    verdict = "corrected" if label == "chaotic" and len(cycles) > n / 2 else "not reproduced"
    return HAS[label].found(verdict, said, 0.0, None, n)  # type: ignore[arg-type]


def _takes_all(draw: Draw) -> bool:
    return draw.label == "single" and draw.counts == {"fixed": 24}


def _study(
    drawn: dict[str, list[Draw]],
    findings: tuple[Finding, ...],
    kinds: tuple[str, ...],
    painter: Painter,
    size: int = 61,
) -> Study:
    panels: list[Panel] = []
    rows: list[dict[str, Any]] = []
    values: dict[str, float] = {}
    for label, found in drawn.items():
        commonest = Counter(draw.label for draw in found).most_common(1)[0][0]
        shown = next((draw for draw in found if draw.label == label), None)
        shown = shown or next(draw for draw in found if draw.label == commonest)
        panel = look(shown, caption(shown.model, f"said to be: {_NAMES[label]}"), size=size)
        panels.append(panel)
        rows += [draw.row(label) | {"shown": draw is shown} for draw in found]
        values |= values_of(found, label)
    for panel in panels:
        rows += panel.rows(*kinds)
    return Study(tuple(rows), findings, partial(draw_panels, panels, (painter,), columns=3), values)

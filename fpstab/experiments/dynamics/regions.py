"""Figures 3 and 4 of paper 3: regions of ρ(A*) by activation, and the fixed point of a layer with and without bias."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from fpstab.experiments.claims import Claim, Finding, Study
from fpstab.experiments.dynamics.measures import SHARE_RULE, Draw, by_share, draw_model, look, values_of
from fpstab.experiments.dynamics.models import LinearMap, Model
from fpstab.experiments.dynamics.pictures import caption, draw_panels, paint_portrait, paint_regions
from fpstab.stability.plots import plane

_REGIONS = 1 << 8  # patterns of eight neurons: four layers of two

LINEAR = Claim(
    3, "Figure 3", "ReLU networks have linear regions; Tanh and Sigmoid give continuous fields, SELU a mixed pattern.",
    f"different A* (to 1e-9 of the largest) on 48 × 48 points: at most {_REGIONS} for ReLU, a quarter of the points or more for the "
    f"other three (A*(−x) = A*(x) for odd σ); {SHARE_RULE}",
    revised="the tolerance is relative, and a quarter of the points is enough",
)  # fmt: skip
EVERYWHERE = Claim(
    3, "Figure 3", "With stable weights ReLU and Tanh networks have ρ(A*) ≤ 1 in the whole plane.",
    f"no point of the grid with ρ > 1 in either; {SHARE_RULE}",
)  # fmt: skip
SELU = Claim(
    3, "Figure 3", "The SELU network is globally stable here, though that is not guaranteed.",
    f"one fixed point takes all starts; {SHARE_RULE}",
)  # fmt: skip
SIGMOID = Claim(
    3, "Figure 3", "The Sigmoid network has a large unstable region surrounded by stable ones.",
    "of Λ = σ(z)/z, ρ(A*) > 1 at 1 % of the points or more in 90 % of eight or more draws, and so it is for "
    "Λ = (σ(z) − σ(0))/z (reproduced); for that one ρ < 1 at all points of all draws and one fixed point takes all "
    "starts (corrected: the region is made by the division by z); else not reproduced",
)  # fmt: skip
ORIGIN = Claim(
    3, "Figure 4", "A stable ReLU layer without bias has the fixed point 0.",
    f"it takes all starts, to 1e-6; {SHARE_RULE}",
)  # fmt: skip
LAST_BIAS = Claim(
    3, "Figure 4", "With a bias the fixed point is the last layer's bias, x̄ = b_L.",
    "|x̄ − b_L| ≤ 1e-6 (1 + |b_L|) in 90 % of eight or more draws (reproduced); else corrected if in all of them "
    "one fixed point x̄ = (I − A*(x̄))⁻¹ b*(x̄), to 1e-9, takes all starts; else not reproduced",
)  # fmt: skip
SAME_SPECTRUM = Claim(
    3, "Figure 4", "Bias terms do not affect the eigenvalues of the network.",
    f"the eigenvalues of A* at 576 points are the same with and without bias, to 1e-9; {SHARE_RULE}",
)  # fmt: skip

FIGURE_3: tuple[Model, ...] = (
    Model(LinearMap("Gershgorin, complex", (0.0, 1.0)), 4, "ReLU", False),
    Model(LinearMap("Gershgorin, real", (0.0, 1.0)), 4, "Tanh", False),
    Model(LinearMap("Spectral", (0.0, 1.0)), 4, "SELU", False),
    Model(LinearMap("Gershgorin, real", (0.0, 1.0)), 4, "Sigmoid", False),
)
FIGURE_4: tuple[Model, ...] = tuple(
    Model(LinearMap("Gershgorin, complex", (0.0, 1.0)), 1, "ReLU", bias) for bias in (True, False)
)


def dynamics_fig3(*, seed: int = 0, draws: int = 10, size: int = 61, activated: bool = True) -> Study:
    """Figure 3: ρ(A*) in the plane for four activations, four layers, stable weights.

    Args:
        seed: The first, of which the picture is.
        draws: Networks of each kind.
        size: Points a side.
        activated: Whether the output is.

    Raises:
        ValueError: If there is no draw.
    """
    drawn = [draw_model(model, seed=seed, draws=draws, activated=activated) for model in FIGURE_3]
    relu, tanh, selu, sigmoid = drawn
    pieces = [[_pieces(draw) for draw in found] for found in drawn]
    quarter = 48 * 48 / 4
    linear = [one <= _REGIONS and all(each >= quarter for each in rest) for one, *rest in zip(*pieces, strict=True)]
    findings = (
        by_share(
            LINEAR,
            linear,
            f"Different A*, first draw: {', '.join(f'{m.activation} {p[0]}' for m, p in zip(FIGURE_3, pieces, strict=True))}.",
        ),
        by_share(
            EVERYWHERE,
            [a.rho_max <= 1 + 1e-12 and b.rho_max <= 1 + 1e-12 for a, b in zip(relu, tanh, strict=True)],
            f"Largest ρ: ReLU {max(d.rho_max for d in relu):.3f}, Tanh {max(d.rho_max for d in tanh):.3f}.",
        ),
        by_share(
            SELU,
            [draw.label == "single" and draw.counts == {"fixed": 24} for draw in selu],
            f"Largest ρ(A*) {max(d.rho_max for d in selu):.3f}.",
        ),
        _sigmoid(sigmoid),
    )
    panels = [look(found[0], caption(found[0].model), size=size) for found in drawn]
    shifted = f"{sigmoid[0].model.activation}, 4 layers\nΛ = (σ(z) − σ(0))/z"
    panels.append(look(sigmoid[0], shifted, size=size, mode="shifted"))
    rows: list[dict[str, Any]] = [draw.row() for found in drawn for draw in found]
    values: dict[str, float] = {}
    for model, found in zip(FIGURE_3, drawn, strict=True):
        values |= values_of(found, model.activation)
    for panel in panels:
        rows += panel.rows("region")
    return Study(tuple(rows), findings, partial(draw_panels, panels, (paint_regions,), columns=5), values)


def dynamics_fig4(*, seed: int = 0, draws: int = 10, activated: bool = True) -> Study:
    """Figure 4: one stable ReLU layer with and without bias. The picture is of the first draw that the bias moves.

    Args:
        seed: The first, of which the picture is.
        draws: Networks of each kind; the same weights with and without bias.
        activated: Whether the output is.

    Raises:
        ValueError: If there is no draw.
    """
    drawn = [draw_model(model, seed=seed, draws=draws, activated=activated) for model in FIGURE_4]
    biased, plain = drawn
    apart = [float((a.eigenvalues - b.eigenvalues).abs().max()) for a, b in zip(biased, plain, strict=True)]
    findings = (
        by_share(
            ORIGIN,
            [draw.label == "single" and float(draw.points.norm(dim=1).max()) <= 1e-6 for draw in plain],
            "",
        ),
        _last_bias(biased),
        by_share(SAME_SPECTRUM, [gap <= 1e-9 for gap in apart], f"They differ by up to {max(apart):.3g}."),
    )
    away = [k for k, draw in enumerate(biased) if len(draw.points) == 1 and float(draw.points.norm()) > 0.1]
    shown = away[0] if away else 0
    panels = [look(found[shown], caption(found[0].model)) for found in drawn]
    rows: list[dict[str, Any]] = [
        draw.row() | {"b1": float(draw.stack.biases[0, -1, 0]), "b2": float(draw.stack.biases[0, -1, 1])}
        for found in drawn
        for draw in found
    ]
    for panel in panels:
        rows += panel.rows("arrow", "orbit", "tail", "fixed point")
    values = values_of(biased, "bias") | values_of(plain, "no_bias") | {"eigenvalues_apart": max(apart)}
    return Study(tuple(rows), findings, partial(draw_panels, panels, (paint_portrait,), columns=2), values)


def _pieces(draw: Draw) -> int:
    """How many different A* there are on 48 × 48 points."""
    A = draw.stack.affine(plane(48), mode="paper").A[0].reshape(-1, 4)
    return len(torch.unique((A * (1e9 / A.abs().max())).round(), dim=0))


def _sigmoid(draws: Sequence[Draw]) -> Finding:
    shares = [float((draw.rho > 1).double().mean()) for draw in draws]
    shifted = [float(draw.rho_shifted.max()) for draw in draws]
    there = sum(share >= 0.01 for share in shares) / len(draws)
    said = (
        f"Λ = σ(z)/z: ρ > 1 at {min(shares):.0%} to {max(shares):.0%} of the points; Λ = (σ(z) − σ(0))/z: ρ ≤ "
        f"{max(shifted):.3g} everywhere; labels {sorted({draw.label for draw in draws})}."
    )
    if len(draws) < 8:
        return SIGMOID.found("inconclusive", said, there, None, len(draws))
    if there >= 0.9 and all(float((draw.rho_shifted > 1).double().mean()) >= 0.01 for draw in draws):
        return SIGMOID.found("reproduced", said, there, None, len(draws))
    if max(shifted) < 1 and all(draw.counts == {"fixed": 24} and draw.label == "single" for draw in draws):
        return SIGMOID.found("corrected", said, there, None, len(draws))
    return SIGMOID.found("not reproduced", said, there, None, len(draws))


def _last_bias(draws: Sequence[Draw]) -> Finding:
    hits, solves, distances = [], [], []
    for draw in draws:
        b = draw.stack.biases[0, -1]
        single = draw.label == "single" and draw.counts == {"fixed": 24}
        at = draw.points[:1]
        distances.append(float((at - b).norm()))
        hits.append(single and distances[-1] <= 1e-6 * (1 + float(b.norm())))
        affine = draw.stack.affine(at, mode="paper")
        solved = torch.linalg.solve(torch.eye(2, dtype=torch.float64) - affine.A[0, 0], affine.b[0, 0])
        solves.append(single and float((solved - at[0]).norm()) <= 1e-9)
    share, n = sum(hits) / len(hits), len(hits)
    said = (
        f"x̄ = b_L in {sum(hits)} of {n} draws, |x̄ − b_L| up to {max(distances):.3g}; x̄ = (I − A*(x̄))⁻¹ b*(x̄), the only one "
        f"that was seen, in {sum(solves)}."
    )
    if n < 8:
        return LAST_BIAS.found("inconclusive", said, share, None, n)
    verdict = "reproduced" if share >= 0.9 else "corrected" if all(solves) else "not reproduced"
    return LAST_BIAS.found(verdict, said, share, None, n)  # type: ignore[arg-type]

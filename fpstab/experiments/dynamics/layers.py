"""Figures 2 and 5 of paper 3: what the layers' weights and their number do to a network's dynamics."""

from functools import partial
from typing import Any

import torch

from fpstab.experiments.claims import Claim, Finding, Study
from fpstab.experiments.dynamics.measures import SHARE_RULE, Draw, Panel, by_share, draw_model, look, values_of
from fpstab.experiments.dynamics.models import LinearMap, Model
from fpstab.experiments.dynamics.pictures import caption, draw_panels, paint_cloud, paint_portrait

_CLOSE = 0.1  # what "ρ ≈ 1" means here

STABLE = Claim(
    3, "Figure 2", "Eight layers, Tanh, Gershgorin weights with eigenvalues in (0.99, 1.00): asymptotically stable.",
    f"one fixed point, the origin to 1e-6, takes all 24 starts; {SHARE_RULE}",
    revised="how Gershgorin weights are drawn: U(−1, 1) exhausted the budget of every row",
)  # fmt: skip
BOUNDED = Claim(
    3, "Figure 2", "Eight layers, Tanh, spectral weights in (0.99, 1.10): BIBO stable, not asymptotically.",
    f"no start leaves all bounds and the label is not 'single'; {SHARE_RULE}",
)  # fmt: skip
UNSTABLE = Claim(
    3, "Figure 2", "Eight layers, Softplus, Gershgorin weights in (1.00, 1.01), bias: unstable.",
    f"the label is 'unstable'; {SHARE_RULE}",
    revised="how Gershgorin weights are drawn: U(−1, 1) exhausted the budget of every row",
)  # fmt: skip
RADII = Claim(
    3, "Figure 2", "The spectral radii of A* tell these apart: ρ ≤ 1, ρ ≈ 1, ρ ≥ 1.",
    f"Λ = σ(z)/z, 576 points of [−6, 6]²: ρ ≤ 1 at all; median within {_CLOSE} of 1; ρ ≥ 1 at all; {SHARE_RULE}",
)  # fmt: skip
SHRINKS = Claim(
    3, "Figure 5", "With asymptotically stable layers the spectral radius shrinks with depth.",
    f"GELU, weights in (0, 1): the maximum of ρ(A*) over 576 points falls from 1 to 4 to 8 layers; {SHARE_RULE}",
)  # fmt: skip
EDGE = Claim(
    3, "Figure 5", "With layers at the edge of stability the spectral radius stays close to 1.",
    f"GELU, weights in (0.99, 1.00): max ρ(A*) within {_CLOSE} of 1 at 1, 4 and 8 layers; {SHARE_RULE}",
)  # fmt: skip
EXPANDS = Claim(
    3, "Figure 5", "With unstable layers the spectral radius grows exponentially with depth.",
    f"GELU, weights in (0.99, 1.10), bias: max ρ(A*) grows from 1 to 4 to 8 layers and is above 1 at 8; {SHARE_RULE}",
)  # fmt: skip

FIGURE_2: tuple[tuple[str, Model], ...] = (
    ("asymptotically stable", Model(LinearMap("Gershgorin, real", (0.99, 1.0)), 8, "Tanh", False)),
    ("BIBO stable", Model(LinearMap("Spectral", (0.99, 1.1)), 8, "Tanh", False)),
    ("unstable", Model(LinearMap("Gershgorin, real", (1.0, 1.01)), 8, "Softplus", True)),
)
FIGURE_5: tuple[tuple[str, LinearMap, bool], ...] = (
    ("stable", LinearMap("Gershgorin, complex", (0.0, 1.0)), False),
    ("edge", LinearMap("Gershgorin, complex", (0.99, 1.0)), False),
    ("unstable", LinearMap("Gershgorin, real", (0.99, 1.1)), True),
)


def dynamics_fig2(*, seed: int = 0, draws: int = 10, activated: bool = True) -> Study:
    """Figure 2: asymptotically stable, BIBO stable and unstable networks, by the eigenvalues of their weights.

    Args:
        seed: The first, of which the picture is.
        draws: Networks of each kind.
        activated: Whether the output is.

    Raises:
        ValueError: If there is no draw.
    """
    drawn = {name: draw_model(model, seed=seed, draws=draws, activated=activated) for name, model in FIGURE_2}
    first, second, third = drawn.values()
    findings = (
        by_share(STABLE, [_at_origin(draw) for draw in first], _labels(first)),
        by_share(
            BOUNDED, [not draw.counts.get("unstable", 0) and draw.label != "single" for draw in second], _labels(second)
        ),
        by_share(UNSTABLE, [draw.label == "unstable" for draw in third], _labels(third)),
        _radii(first, second, third),
    )
    panels = [look(draws[0], caption(draws[0].model, f"said to be {name}")) for name, draws in drawn.items()]
    rows: list[dict[str, Any]] = [draw.row(name) for name, draws in drawn.items() for draw in draws]
    for panel in panels:
        rows += panel.rows("arrow", "orbit", "tail", "fixed point", "eigenvalue")
    values: dict[str, float] = {}
    for name, found in drawn.items():
        values |= values_of(found, name)
    return Study(tuple(rows), findings, partial(draw_panels, panels, (paint_portrait, paint_cloud), columns=3), values)


def dynamics_fig5(*, seed: int = 0, draws: int = 10, activated: bool = True) -> Study:
    """Figure 5: eigenvalues of A* of GELU networks with 1, 4 and 8 layers: stable, at the edge, and unstable.

    Args:
        seed: The first, of which the picture is.
        draws: Networks of each kind.
        activated: Whether the output is.

    Raises:
        ValueError: If there is no draw.
    """
    drawn: dict[str, list[list[Draw]]] = {
        name: [
            draw_model(Model(linear, depth, "GELU", bias), seed=seed, draws=draws, activated=activated)
            for depth in (1, 4, 8)
        ]
        for name, linear, bias in FIGURE_5
    }
    tops = {
        name: list(zip(*([draw.rho_max for draw in found] for found in depths), strict=True))
        for name, depths in drawn.items()
    }
    findings = (
        by_share(SHRINKS, [one > four > eight for one, four, eight in tops["stable"]], _means(tops["stable"])),
        by_share(EDGE, [all(abs(top - 1) <= _CLOSE for top in each) for each in tops["edge"]], _means(tops["edge"])),
        by_share(
            EXPANDS,
            [one < four < eight and eight > 1 for one, four, eight in tops["unstable"]],
            _means(tops["unstable"]),
        ),
    )
    panels: list[Panel] = []
    rows: list[dict[str, Any]] = []
    values: dict[str, float] = {}
    for name, depths in drawn.items():
        for found in depths:
            model = found[0].model
            title = caption(model)
            panels.append(look(found[0], title))
            rows += [draw.row(title) for draw in found]
            values |= values_of(found, f"{name}/{model.depth}")
    for panel in panels:
        rows += panel.rows("eigenvalue")
    return Study(tuple(rows), findings, partial(draw_panels, panels, (paint_cloud,), columns=3), values)


def _at_origin(draw: Draw) -> bool:
    return (
        draw.label == "single" and not draw.counts.get("unstable", 0) and float(draw.points.norm(dim=1).min()) <= 1e-6
    )


def _radii(first: list[Draw], second: list[Draw], third: list[Draw]) -> Finding:
    hits = [
        bool((a.rho <= 1 + 1e-12).all())
        and abs(float(b.rho.nanmedian()) - 1) <= _CLOSE
        and bool((c.rho[torch.isfinite(c.rho)] >= 1 - 1e-12).all())
        for a, b, c in zip(first, second, third, strict=True)
    ]
    said = (
        f"Means: max ρ {_mean(d.rho_max for d in first):.3f}; median ρ {_mean(float(d.rho.nanmedian()) for d in second):.3f}; "
        f"min ρ {_mean(float(d.rho.nan_to_num(1e300).min()) for d in third):.3f}."
    )
    return by_share(RADII, hits, said)


def _labels(draws: list[Draw]) -> str:
    labels = [draw.label for draw in draws]
    return f"Labels: {', '.join(f'{label} {labels.count(label)}' for label in sorted(set(labels)))}."


def _means(tops: list[tuple[float, ...]]) -> str:
    means = [_mean(column) for column in zip(*tops, strict=True)]
    return f"Mean of max ρ(A*) at 1, 4, 8 layers: {', '.join(f'{mean:.3g}' for mean in means)}."


def _mean(values: Any) -> float:
    each = list(values)
    return float(sum(each) / len(each))

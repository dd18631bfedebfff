"""When random networks are contractions: g against β, width and activation (paper 2, Figure 4) and depth (Figure 5)."""

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.experiments.blocks import Backend, Progress, run_blocks
from fpstab.experiments.claims import Claim, Finding, Study, Verdict
from fpstab.experiments.random_networks.censuses import first_seed, mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TANH = Claim(
    2, "Figure 4a", "A Gaussian layer 2 → N of tanh is a contraction from β_cr ≈ 1/2 on (N = 400).",
    "reproduced if the mean β_cr is within .02 of .5, else not reproduced. 3 draws.", "1/2",
)  # fmt: skip
SIGMOID = Claim(
    2, "Figure 4b", "For the sigmoid activation β_cr ≈ 1/4.",
    "reproduced if β_cr is within .03 of .25 at N = 400 and at the greatest width (1,600 or more); corrected if at N = 400 "
    "only, and everywhere within .02 of ½ − [ln 4 − ln(1 + √(2/N))]/ln N, which tends to ½; else not reproduced. 3 draws.",
    "1/4",
)  # fmt: skip
ODD = Claim(
    2, "§V, odd activations", "Odd activations do not affect β_cr.",
    "reproduced if the mean β_cr of all odd activations run, two or more, are within .01 of each other at N = 400; else "
    "not reproduced. 3 draws.",
)  # fmt: skip
WIDTH = Claim(
    2, "§V, width", "The width N only affects the normalisation: with σ = N^−1/2, g does not depend on it.",
    "reproduced if the mean g of tanh at β = 1/2 varies by at most 5 % over all widths of 400 or more, two at least; else "
    "not reproduced. 3 draws.",
)  # fmt: skip
DEPTH = Claim(
    2, "Figure 5, eq. (9)", "g = g₀^L, for β below and above β_cr.",
    "per β: exponential if the ratios of g of consecutive depths, from L = 1 on, differ by at most 10 %. Reproduced if so "
    "for both, corrected if only for β > β_cr, else not reproduced. Depth 4 at least; means of 2 draws of log g.",
)  # fmt: skip
BRACKET = Claim(
    2, "eq. (8)", "g, over the pairs of a grid, tells whether Φ is a contraction.",
    "corrected if g is a lower bound in every row, below the largest ‖J‖₂ (to 1 %) and the certified bounds, and in some "
    "row g < 1 while no bound proves a contraction; reproduced if no such row; not reproduced if g exceeds a bound.",
)  # fmt: skip
FULL: dict[str, dict[str, Any]] = {
    "by_beta": {
        "widths": (100, 200, 400, 800, 1600, 3200, 6400),
        "activations": ("tanh", "hardtanh", "erf", "softsign", "sigmoid"),
        "draws": 20,
    },
    "by_layers": {"depth": 12, "draws": 10, "certified": 2, "betas": (0.4, 0.45, 0.5, 0.55, 0.6, 0.7)},
}
"""The papers' size (N = 400, 41×41 nodes), by function, with more draws and widths."""

_BETAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_EVEN = ("sigmoid", "hardsigmoid", "softplus", "logsigmoid", "relu")


def by_beta(
    *,
    seed: int = 0,
    widths: Sequence[int] = (100, 400, 1600),
    activations: Sequence[str] = ("tanh", "hardtanh", "sigmoid"),
    betas: Sequence[float] = _BETAS,
    draws: int = 3,
    out: Path | str | None = None,
    jobs: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> Study:
    """Figure 4: g of Gaussian layers 2 → N, σ = N^−β, against β, and β_cr where it is 1.

    g is the largest ‖J‖₂ on the grid, which exceeds that over pairs by a thousandth. The norm of the weight times the
    largest slope, rounded outward, bounds it from above.

    Args:
        seed: Of the first draw.
        widths: N.
        activations: By name.
        betas: β.
        draws: Weights of each width and activation.
        out: Folder for finished blocks, see `fpstab.experiments.blocks`.
        jobs: Blocks at once.
        backend: What runs them.
        progress: Is told the number of finished blocks and of all.

    Raises:
        ValueError: If a number is out of range.
    """
    if draws < 1 or not betas or min(widths) < 2:
        raise ValueError(
            f"by_beta: draws={draws}, betas={tuple(betas)}, widths={tuple(widths)}; expected some of each."
        )
    keys = [(activation, width) for activation in activations for width in sorted(widths)]
    settings = [
        {"activation": activation, "width": width, "betas": sorted(betas), "seed": first_seed(seed, width) + k}
        for activation, width in keys
        for k in range(draws)
    ]
    found = run_blocks(beta_block, settings, out=out, jobs=jobs, backend=backend, progress=progress)
    groups = {key: found[i * draws : (i + 1) * draws] for i, key in enumerate(keys)}
    rows = [
        {
            "activation": activation,
            "width": width,
            "beta": beta,
            "g": statistics.fmean(block["g"][i] for block in blocks),
            "upper": statistics.fmean(block["upper"][i] for block in blocks),
            "draws": draws,
        }
        for (activation, width), blocks in groups.items()
        for i, beta in enumerate(sorted(betas))
    ]
    critical = {key: mean_and_error([block["critical"] for block in blocks]) for key, blocks in groups.items()}
    half = {key: statistics.fmean(block["half"] for block in blocks) for key, blocks in groups.items()}
    values = {f"{activation}/N{width}/beta_cr": mean for (activation, width), (mean, _) in critical.items()}
    findings = (*_betas_found(critical, draws), _width_found(half, draws))
    return Study(tuple(rows), findings, lambda: _draw_beta(rows, critical), values)


def beta_block(*, activation: str, width: int, betas: Sequence[float], seed: int) -> dict[str, Any]:
    """One layer 2 → N: g and its upper bound at each β, g at β = ½, and β_cr.

    Args:
        activation: By name.
        width: N.
        betas: β.
        seed: Of weight and bias.
    """
    from torch import Generator

    from fpstab.experiments.random_networks.slopes import critical, gradient, product_of_norms, scaled, unscaled

    drawn = unscaled((2, width), distribution="normal", generator=Generator().manual_seed(seed))

    def g(beta: float) -> float:
        return gradient(scaled(*drawn, width**-beta, activation))

    upper = product_of_norms(scaled(*drawn, 1.0, activation)) * (1 + 1e-12)  # more than what rounding may take
    known = {beta: g(beta) for beta in {*betas, 0.0, 0.5, 1.0}}
    low = max((beta for beta, value in known.items() if value >= 1), default=0.0)
    high = min((beta for beta, value in known.items() if value <= 1), default=1.0)
    return {
        "g": [known[beta] for beta in betas],
        "upper": [upper * width**-beta for beta in betas],
        "half": known[0.5],
        "critical": critical(g, low, high),
    }


def by_layers(
    *,
    seed: int = 0,
    width: int = 400,
    depth: int = 5,
    betas: Sequence[float] = (0.4, 0.6),
    activation: str = "tanh",
    draws: int = 2,
    certified: int = 1,
    out: Path | str | None = None,
    jobs: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> Study:
    """Figure 5: g of Gaussian networks 2 → N → … → N, σ = N^−β, against the number of layers, bracketed from above.

    Args:
        seed: Of the first draw.
        width: N.
        depth: The most layers.
        betas: β.
        activation: By name.
        draws: Weights of each β.
        certified: The most layers for which LipSDP is solved, in the first draw, beside the product of norms.
        out: Folder for finished blocks, see `fpstab.experiments.blocks`.
        jobs: Blocks at once.
        backend: What runs them.
        progress: Is told the number of finished blocks and of all.

    Raises:
        ValueError: If a number is out of range.
    """
    if draws < 1 or depth < 1 or not betas:
        raise ValueError(f"by_layers: draws={draws}, depth={depth}, betas={tuple(betas)}; expected 1 or more of each.")
    settings = [
        {"width": width, "depth": depth, "beta": beta, "activation": activation, "seed": first_seed(seed, width) + k}
        | {"certified": certified if k == 0 else 0}
        for beta in sorted(betas)
        for k in range(draws)
    ]
    found = run_blocks(layers_block, settings, out=out, jobs=jobs, backend=backend, progress=progress)
    rows = []
    for i, beta in enumerate(sorted(betas)):
        blocks = found[i * draws : (i + 1) * draws]
        for layer in range(depth):
            logs = [math.log(block["g"][layer]) for block in blocks]
            rows.append(
                {
                    "beta": beta,
                    "layers": layer + 1,
                    "g": math.exp(statistics.fmean(logs)),
                    "pairs": blocks[0]["pairs"][layer],
                    "gradient": blocks[0]["g"][layer],
                    "certified": blocks[0]["certified"][layer],
                    "product": blocks[0]["product"][layer],
                    "draws": draws,
                }
            )
    ratios = {beta: _ratios(rows, beta) for beta in sorted(betas)}
    findings = (_depth_found(ratios, depth, draws), _bracket_found(rows))
    values: dict[str, float] = {}
    for beta, each in ratios.items():
        if each:
            values |= {f"beta{beta:g}/ratio_first": each[0], f"beta{beta:g}/ratio_last": each[-1]}
    return Study(tuple(rows), findings, lambda: _draw_layers(rows), values)


def layers_block(
    *, width: int, depth: int, beta: float, activation: str, seed: int, certified: int
) -> dict[str, Any]:  # fmt: skip
    """One network 2 → N → … → N: g after each layer by ‖J‖₂ and by pairs, and its bounds.

    Args:
        width: N.
        depth: Layers.
        beta: β.
        activation: By name.
        seed: Of weights and biases.
        certified: Layers for which LipSDP is solved.
    """
    from torch import Generator

    from fpstab.ensembles import RandomNetworkBatch
    from fpstab.experiments.random_networks.slopes import gradient, over_pairs, product_of_norms, scaled, unscaled
    from fpstab.lipschitz import lipschitz_bound

    drawn = unscaled((2,) + (width,) * depth, distribution="normal", generator=Generator().manual_seed(seed))
    whole = scaled(*drawn, width**-beta, activation)
    parts = [RandomNetworkBatch(whole.weights[:k], whole.biases[:k], activation) for k in range(1, depth + 1)]
    bounds = [lipschitz_bound(part.network(0), throw=False).value for part in parts[:certified]]
    return {
        "g": [gradient(part) for part in parts],
        "pairs": [over_pairs(part) for part in parts] if certified else [None] * depth,
        "certified": bounds + [None] * (depth - len(bounds)),
        "product": [product_of_norms(part) for part in parts] if certified else [None] * depth,
    }


def _betas_found(critical: dict[tuple[str, int], tuple[float, float]], draws: int) -> list[Finding]:
    from fpstab.experiments.random_networks.slopes import sigmoid_critical

    findings = []
    tanh, error = critical.get(("tanh", 400), (math.nan, math.nan))
    enough = draws >= 3
    verdict: Verdict = "reproduced" if abs(tanh - 0.5) <= 0.02 else "not reproduced"
    said = f"β_cr = {tanh:.3f} ± {error:.3f} at N = 400."
    findings.append(TANH.found(verdict if enough and tanh == tanh else "inconclusive", said, tanh, error, draws))

    of_sigmoid = {width: value for (name, width), value in critical.items() if name == "sigmoid"}
    verdict, at_400 = "inconclusive", of_sigmoid.get(400, (math.nan, math.nan))
    if enough and 400 in of_sigmoid and max(of_sigmoid) >= 1600:
        alike = [abs(of_sigmoid[width][0] - 0.25) <= 0.03 for width in (400, max(of_sigmoid))]
        formula = all(abs(mean - sigmoid_critical(width)) <= 0.02 for width, (mean, _) in of_sigmoid.items())
        verdict = "reproduced" if all(alike) else "corrected" if alike[0] and formula else "not reproduced"
    said = ", ".join(f"N = {n}: {m:.3f} (formula {sigmoid_critical(n):.3f})" for n, (m, _) in of_sigmoid.items()) + "."
    findings.append(SIGMOID.found(verdict, said, *at_400, draws))

    odd = {name: mean for (name, width), (mean, _) in critical.items() if width == 400 and name not in _EVEN}
    apart = max(odd.values()) - min(odd.values()) if odd else math.nan
    verdict = "reproduced" if apart <= 0.01 else "not reproduced"
    said = ", ".join(f"{name} {mean:.3f}" for name, mean in odd.items()) + "."
    findings.append(ODD.found(verdict if enough and len(odd) > 1 else "inconclusive", said, apart, None, draws))
    return findings


def _width_found(half: dict[tuple[str, int], float], draws: int) -> Finding:
    wide = {width: g for (name, width), g in half.items() if name == "tanh" and width >= 400}
    if len(wide) < 2 or draws < 3:
        return WIDTH.found("inconclusive", "Fewer than two such widths were run, or three draws.", sample=draws)
    apart = max(wide.values()) / min(wide.values()) - 1
    said = ", ".join(f"N = {width}: g = {g:.3f}" for width, g in wide.items()) + " at β = 1/2."
    return WIDTH.found("reproduced" if apart <= 0.05 else "not reproduced", said, apart, None, draws)


def _ratios(rows: Sequence[dict[str, Any]], beta: float) -> list[float]:
    g = [row["g"] for row in rows if row["beta"] == beta]
    return [after / before for before, after in pairwise(g)]


def _depth_found(ratios: dict[float, list[float]], depth: int, draws: int) -> Finding:
    said = "; ".join(
        f"β = {beta:g}: {each[0]:.3f} falling to {each[-1]:.3f} a layer" for beta, each in ratios.items() if each
    )
    below = [each for beta, each in ratios.items() if beta < 0.5]
    above = [each for beta, each in ratios.items() if beta > 0.52]
    if depth < 4 or draws < 2 or not below or not above:
        return DEPTH.found("inconclusive", f"{said}.", sample=draws)
    exponential = [all(max(each) <= 1.1 * min(each) for each in some) for some in (below, above)]
    verdict: Verdict = "reproduced" if all(exponential) else "corrected" if exponential[1] else "not reproduced"
    return DEPTH.found(verdict, f"{said}.", above[-1][-1], None, draws)


def _bracket_found(rows: Sequence[dict[str, Any]]) -> Finding:
    known = [row for row in rows if row["pairs"] is not None and row["product"] is not None]
    if not known:
        return BRACKET.found("inconclusive", "No bounds were computed.", sample=0)
    upper = [min(row["product"], row["certified"] or math.inf) for row in known]
    broken = [row for row, up in zip(known, upper, strict=True) if row["pairs"] > min(1.01 * row["gradient"], up)]
    unproved = [row for row, up in zip(known, upper, strict=True) if row["pairs"] < 1 <= up]
    verdict: Verdict = "not reproduced" if broken else "corrected" if unproved else "reproduced"
    said = (
        f"g ≤ bound in {len(known) - len(broken)} of {len(known)} networks; g < 1 but not proved in {len(unproved)}. "
        f"Upper over lower: {min(u / r['pairs'] for u, r in zip(upper, known, strict=True)):.2f} to "
        f"{max(u / r['pairs'] for u, r in zip(upper, known, strict=True)):.2f}."
    )
    return BRACKET.found(verdict, said, None, None, len(known))


def _draw_beta(
    rows: Sequence[dict[str, Any]], critical: dict[tuple[str, int], tuple[float, float]]
) -> "Figure":  # fmt: skip
    from matplotlib.figure import Figure

    from fpstab.experiments.random_networks.slopes import sigmoid_critical

    names = list(dict.fromkeys(name for name, _ in critical))
    widths = sorted({width for _, width in critical})
    shown = 400 if 400 in widths else widths[-1]
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes: tuple[Axes, Axes] = figure.subplots(1, 2)
    for name in names:
        mine = [row for row in rows if row["activation"] == name and row["width"] == shown]
        (line,) = axes[0].plot([r["beta"] for r in mine], [r["g"] for r in mine], "o-", ms=3, label=name)
        axes[0].plot([r["beta"] for r in mine], [r["upper"] for r in mine], ":", color=line.get_color(), lw=1)
        points = [critical[name, width] for width in widths]
        axes[1].errorbar(widths, [p[0] for p in points], [p[1] for p in points], fmt="o", ms=3, color=line.get_color())
    axes[0].axhline(1, color="0.6", lw=0.8)
    axes[0].set_yscale("log")
    axes[0].set_xlabel("β")
    axes[0].set_ylabel("g; dotted: ‖W‖ · max slope")
    axes[0].set_title(f"one layer, 2 → {shown}", fontsize="medium")
    axes[0].legend(fontsize="small")
    axes[1].plot(widths, [sigmoid_critical(width) for width in widths], "k--", lw=1, label="formula for sigmoid")
    axes[1].axhline(0.25, color="0.6", lw=0.8, label="as printed: 1/4")
    axes[1].set_xscale("log")
    axes[1].set_xlabel("width N")
    axes[1].set_ylabel("β_cr")
    axes[1].legend(fontsize="small")
    return figure


def _draw_layers(rows: Sequence[dict[str, Any]]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    ax: Axes = figure.subplots()
    for beta in sorted({row["beta"] for row in rows}):
        mine = [row for row in rows if row["beta"] == beta]
        (line,) = ax.plot([r["layers"] for r in mine], [r["g"] for r in mine], "o-", ms=3, label=f"β = {beta:g}")
        for key, style in (("product", ":"), ("certified", "^")):
            some = [r for r in mine if r[key] is not None]
            ax.plot([r["layers"] for r in some], [r[key] for r in some], style, color=line.get_color(), lw=1)
    ax.axhline(1, color="0.6", lw=0.8)
    ax.set_yscale("log")
    ax.set_xlabel("layers L")
    ax.set_ylabel("g; dotted: product of norms, ▲: LipSDP")
    ax.legend(fontsize="small")
    return figure

"""What the law and the activation do to the number of fixed points: light tails (paper 1, Proposition 1), and φ."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.experiments.blocks import Backend, Progress, run_blocks
from fpstab.experiments.claims import Claim, Finding, Study, Verdict
from fpstab.experiments.random_networks.censuses import Tally, first_seed, tallies
from fpstab.experiments.random_networks.counts import draw_outcomes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROPOSITION_1 = Claim(
    1, "Proposition 1", "A light-tailed network has exactly one fixed point at any width, depth and sigmoid-type activation.",
    "reproduced if Q = 1 and every start converges in all networks of all laws; corrected if so in all of depth 2 or more, "
    "but not of depth 1; not reproduced otherwise. 25 networks a law, both depths.", "Q = 1",
)  # fmt: skip
PROOF = Claim(
    2, "§V, computer-assisted proof", "Gaussian networks of scale 1/fan-in are contractions, as g < 1 on a grid proves.",
    "corrected if the product of norms, rounded outward, is below 1 (a proof; a grid is none) in all networks tried of "
    "depth 2 or more and width 100 or more; not reproduced if some Jacobian on the grid has a norm of 1 or more; else "
    "inconclusive. 3 networks a law.",
)  # fmt: skip
WEAK_SIMILARITY = Claim(
    2, "§III, activation", "The choice of the activation does not change the number of fixed points of Cauchy networks.",
    "not reproduced if P(Q = 1) of an activation differs from that of HardTanh by more than 4 combined standard errors at "
    "some depth; reproduced if by at most 3 at all, with 200 networks; else inconclusive. 25 networks.",
)  # fmt: skip

FULL: dict[str, dict[str, Any]] = {
    "light_tails": {
        "distributions": ("normal", "uniform", "student-t(5)"),
        "activations": ("hardtanh", "tanh", "sigmoid", "erf", "softsign"),
        "widths": (20, 100, 400),
        "depths": (1, 2, 3, 5, 20),
        "networks": 300,
    },
    "activations": {
        "names": ("hardtanh", "tanh", "erf", "softsign", "sigmoid", "hardsigmoid"),
        "depths": (1, 2, 3, 5, 10, 20),
        "networks": 500,
    },
}
"""The papers' size, by function."""


def light_tails(
    *,
    seed: int = 0,
    distributions: Sequence[str] = ("normal", "uniform"),
    activations: Sequence[str] = ("hardtanh", "sigmoid"),
    widths: Sequence[int] = (20, 100),
    depths: Sequence[int] = (1, 2, 5),
    networks: int = 25,
    proved: int = 3,
    out: Path | str | None = None,
    jobs: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> Study:
    """Whether light-tailed networks of scale 1/fan-in have one fixed point each, and whether they are contractions.

    Args:
        seed: Of the study.
        distributions: Of weights and biases.
        activations: By name.
        widths: Of the hidden layers; a network of depth 1 has none.
        depths: L.
        networks: Of each law.
        proved: Networks of each law whose product of norms is bounded.
        out: Folder for finished blocks, see `fpstab.experiments.blocks`.
        jobs: Blocks at once.
        backend: What runs them.
        progress: Is told the number of finished blocks and of all.

    Raises:
        ValueError: If a number is out of range or a name unknown.
    """
    laws: list[dict[str, Any]] = [
        {"depth": depth, "width": width, "distribution": distribution, "activation": activation}
        for distribution in distributions
        for activation in activations
        for depth in sorted(depths)
        for width in (sorted(widths) if depth > 1 else sorted(widths)[:1])
    ]
    options: dict[str, Any] = {"out": out, "jobs": jobs, "backend": backend}
    found = tallies(laws, networks, seed=seed, progress=progress, **options)
    settings = [law | {"first": first_seed(seed, law["depth"]), "count": min(proved, networks)} for law in laws]
    bounds = run_blocks(bound_block, settings, **options)
    rows = tuple(
        tally.row() | {"bound_max": max(bound["upper"]), "gradient_max": max(bound["lower"])}
        for tally, bound in zip(found, bounds, strict=True)
    )
    single = {f"{_name(t.law)}/p1": t.p(1) for t in found}
    findings = (_proposition(found), _proof(laws, bounds))
    return Study(rows, findings, lambda: draw_outcomes(rows, "activation, depth"), single)


def bound_block(*, first: int, count: int, **law: Any) -> dict[str, Any]:
    """Bounds of the Lipschitz constants of networks: products of norms from above, Jacobians on the grid from below.

    Args:
        first: The first seed.
        count: Networks.
        law: Arguments of `RandomNetworks`.
    """
    import torch

    from fpstab.ensembles import RandomNetworks
    from fpstab.ensembles.census import grid
    from fpstab.experiments.random_networks.slopes import product_of_norms

    batch = RandomNetworks(**law).from_seeds(range(first, first + count))
    J = batch.jacobian(grid().expand(count, -1, -1))
    lower = torch.linalg.matrix_norm(J, 2).amax(1)
    return {"upper": [product_of_norms(batch, i) for i in range(count)], "lower": lower.tolist()}


def activations(
    *,
    seed: int = 0,
    names: Sequence[str] = ("hardtanh", "tanh", "erf", "sigmoid"),
    depths: Sequence[int] = (2, 3),
    networks: int = 25,
    out: Path | str | None = None,
    jobs: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> Study:
    """Q of Cauchy networks with other activations.

    Args:
        seed: Of the study.
        names: Of the activations, HardTanh among them.
        depths: L.
        networks: Of each.
        out: Folder for finished blocks, see `fpstab.experiments.blocks`.
        jobs: Blocks at once.
        backend: What runs them.
        progress: Is told the number of finished blocks and of all.

    Raises:
        ValueError: If HardTanh is missing, a name is unknown or a number out of range.
    """
    if "hardtanh" not in names:
        raise ValueError(f"activations: names={tuple(names)}; expected 'hardtanh' among them, to compare with.")
    laws = [{"depth": depth, "activation": name} for depth in sorted(depths) for name in names]
    found = tallies(laws, networks, seed=seed, out=out, jobs=jobs, backend=backend, progress=progress)
    rows = tuple(tally.row() for tally in found)
    values = {f"{_name(tally.law)}/p1": tally.p(1) for tally in found}
    return Study(rows, (_similarity(found),), lambda: _draw(rows), values)


def _proposition(found: Sequence[Tally]) -> Finding:
    unique = [t.having(q == 1 and share == 1 for q, share in zip(t.q, t.shares["fixed"], strict=True)) for t in found]
    single = [share for t, share in zip(found, unique, strict=True) if t.law["depth"] == 1]
    deep = [share for t, share in zip(found, unique, strict=True) if t.law["depth"] > 1]
    sample = sum(len(t) for t in found)
    said = "One fixed point that all starts reach: " + ", ".join(
        f"in {min(shares):.3f} to {max(shares):.3f} of the networks of {what} ({len(shares)} laws)"
        for what, shares in (("depth 1", single), ("depth 2 or more", deep))
        if shares
    )
    if not single or not deep or min(len(t) for t in found) < 25:
        verdict: Verdict = "inconclusive"
    elif min(deep) < 1:
        verdict = "not reproduced"
    else:
        verdict = "reproduced" if min(single) == 1 else "corrected"
    return PROPOSITION_1.found(verdict, said + ".", min(unique), None, sample)


def _proof(laws: Sequence[dict[str, Any]], bounds: Sequence[dict[str, Any]]) -> Finding:
    wide = [
        bound
        for law, bound in zip(laws, bounds, strict=True)
        if law["depth"] > 1 and law["width"] >= 100 and law["distribution"] == "normal"
    ]
    if not wide or min(len(bound["upper"]) for bound in wide) < 3:
        return PROOF.found("inconclusive", "No such networks were run.", sample=0)
    upper, lower = max(max(b["upper"]) for b in wide), max(max(b["lower"]) for b in wide)
    verdict: Verdict = "corrected" if upper < 1 else "not reproduced" if lower >= 1 else "inconclusive"
    said = f"The largest product of norms is {upper:.3f}, the largest ‖J‖₂ on the grid {lower:.3f}."
    return PROOF.found(verdict, said, upper, None, sum(len(bound["upper"]) for bound in wide))


def _similarity(found: Sequence[Tally]) -> Finding:
    reference = {t.law["depth"]: t for t in found if t.law["activation"] == "hardtanh"}
    worst, said = 0.0, []
    for tally in found:
        other = reference[tally.law["depth"]]
        if tally is other:
            continue
        n = len(tally)
        error = (tally.p_error(1) ** 2 + other.p_error(1) ** 2 + 1 / n**2) ** 0.5
        worst = max(worst, abs(tally.p(1) - other.p(1)) / error)
        said.append(f"{_name(tally.law)} {tally.p(1):.3f} (hardtanh {other.p(1):.3f})")
    least = min(len(t) for t in found)
    verdict: Verdict = "inconclusive"
    if least >= 25 and worst > 4:
        verdict = "not reproduced"
    elif least >= 200 and worst <= 3:
        verdict = "reproduced"
    text = f"P(Q = 1): {', '.join(said)}; at most {worst:.1f} standard errors apart."
    return WEAK_SIMILARITY.found(verdict, text, worst, None, least)


def _name(law: dict[str, Any]) -> str:
    parts = [str(law[key]) for key in ("distribution", "activation") if key in law]
    parts += [f"L{law['depth']}"] + ([f"N{law['width']}"] if "width" in law and law["depth"] > 1 else [])
    return "-".join(parts)


def _draw(rows: Sequence[dict[str, Any]]) -> "Figure":
    return draw_outcomes(rows, "activation, depth")

"""Basins of chosen networks: Figure 2 of paper 1 and Figure 1 of paper 2, with seeds that were searched for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.experiments.blocks import Backend, Progress, run_blocks
from fpstab.experiments.claims import Claim, Finding, Study, Verdict
from fpstab.experiments.random_networks.censuses import census_block, first_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpstab.fixed_points import Basins

_EXISTS_RULE = (
    "reproduced if among the networks searched there is one with so many fixed points by the papers' search; else "
    "inconclusive: that it is typical is another claim (Figure 2 of paper 2)."
)
FIGURES_1 = {
    (2, 2): Claim(1, "Figure 2b", "A Cauchy network with L = 2 and Q = 2.", _EXISTS_RULE, "Q = 2"),
    (3, 3): Claim(1, "Figure 2c", "A Cauchy network with L = 3 and Q = 3.", _EXISTS_RULE, "Q = 3"),
    (5, 5): Claim(1, "Figure 2d", "A Cauchy network with L = 5 and Q = 5.", _EXISTS_RULE, "Q = 5"),
    (20, 1): Claim(1, "Figure 2a, L = 20", "A Cauchy network with L = 20 and Q = 1.", _EXISTS_RULE, "Q = 1"),
}
"""By depth and Q."""
FIGURES_2 = {
    key: Claim(2, claim.item.replace("Figure 2", "Figure 1"), claim.text, claim.rule, claim.printed)
    for key, claim in FIGURES_1.items()
}
ORIGIN = Claim(
    2, "Figure 1a (paper 1: 2a)", "A Gaussian network with L = 2 has the unique fixed point x = 0, which attracts the square.",
    "reproduced if Q = 1, all starts converge and |x*| < .001; corrected if Q = 1, all starts converge, but x* is "
    "elsewhere (biases are random); else not reproduced. 1 network.", "x = 0",
)  # fmt: skip
INTERIOR = Claim(
    1, "Proposition 2, basins", "Each fixed point is an interior point of its basin.",
    "reproduced if from 32 points around each fixed point of the networks shown, at a distance of .001, iteration leads "
    "back to it; corrected if so for those with ρ(J) < 1 only; else not reproduced. 3 fixed points.",
)  # fmt: skip

FULL: dict[str, dict[str, Any]] = {"basins_of_realisations": {"limit": 4000, "resolution": 401}}
"""A longer search, and finer pictures than the paper's."""

_BLOCK = 25
_AROUND, _CLOSE, _STEPS = 32, 1e-3, 2000


@dataclass(frozen=True, slots=True)
class Realisation:
    """A network that was found.

    Attributes:
        depth: L.
        q: How many fixed points it was to have.
        distribution: Of its weights.
        seed: For `RandomNetworks(depth, distribution=…).from_seeds([seed])`; `None` if there was none.
        searched: Networks that were looked at.
        found: Of them, those with Q fixed points.
    """

    depth: int
    q: int
    distribution: str
    seed: int | None
    searched: int
    found: int


def basins_of_realisations(
    *,
    seed: int = 0,
    wanted: Sequence[tuple[int, int]] = ((2, 2), (3, 3), (5, 5), (20, 1)),
    limit: int = 50,
    resolution: int = 101,
    out: Path | str | None = None,
    jobs: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> Study:
    """Search for networks with the printed numbers of fixed points, name their seeds, and draw their basins.

    Args:
        seed: Of the study.
        wanted: Depth and Q of each network.
        limit: Networks of each depth to look at; the search ends with the block in which one is found.
        resolution: Nodes along each side of the pictures; the search has the papers' 41.
        out: Folder for finished blocks, see `fpstab.experiments.blocks`.
        jobs: Blocks at once.
        backend: What runs them.
        progress: Is told the number of depths that are done and of all.

    Raises:
        ValueError: If a number is out of range.
    """
    if limit < 1 or not wanted:
        raise ValueError(f"basins_of_realisations: limit={limit}, wanted={tuple(wanted)}; expected one or more.")
    options: dict[str, Any] = {"out": out, "jobs": jobs, "backend": backend}
    chosen = [Realisation(2, 1, "normal", first_seed(seed, 2), 1, 1)]
    for done, (depth, q) in enumerate(wanted):
        if progress is not None:
            progress(done, len(wanted))
        chosen.append(_search(depth, q, limit, seed, options))
    rows: list[dict[str, Any]] = []
    pictures: list[tuple[Realisation, Basins]] = []
    returns: list[tuple[float, bool]] = []
    for each in chosen:
        row = {"L": each.depth, "distribution": each.distribution, "Q": each.q, "seed": each.seed,
               "searched": each.searched, "found": each.found}  # fmt: skip
        if each.seed is not None:
            details, picture, inside = _look(each, resolution)
            row |= details
            pictures.append((each, picture))
            returns += inside if each.distribution == "cauchy" else []
        rows.append(row)
    findings = [
        _exists(claims[each.depth, each.q], each)
        for claims in (FIGURES_1, FIGURES_2)
        for each in chosen[1:]
        if (each.depth, each.q) in claims
    ]
    findings += [_origin(rows[0]), _interior(returns)]
    values = {f"L{each.depth}/Q{each.q}/share": each.found / each.searched for each in chosen[1:]}
    values |= {f"L{each.depth}/Q{each.q}/seed": float(each.seed) for each in chosen[1:] if each.seed is not None}
    return Study(tuple(rows), tuple(findings), lambda: _draw(pictures), values)


def _search(depth: int, q: int, limit: int, seed: int, options: dict[str, Any]) -> Realisation:
    """The network with Q fixed points whose smallest basin is largest, of the first block that has one."""
    start, searched, found, named = first_seed(seed, depth), 0, 0, None
    while searched < limit and named is None:
        count = min(_BLOCK, limit - searched)
        (block,) = run_blocks(census_block, [{"depth": depth, "first": start + searched, "count": count}], **options)
        hits = [s for s, n, stable in zip(block["seeds"], block["q"], block["stable"], strict=True) if n == stable == q]
        searched, found = searched + count, found + block["q"].count(q)
        named = max(hits, key=lambda s: _smallest_basin(depth, s), default=None)
    return Realisation(depth, q, "cauchy", named, searched, found)


def _smallest_basin(depth: int, seed: int) -> int:
    from fpstab.ensembles import RandomNetworks
    from fpstab.ensembles.census import fixed_point_census

    return fixed_point_census(RandomNetworks(depth).from_seeds([seed])).basin_sizes(0)[-1]


def _look(each: Realisation, resolution: int) -> tuple[dict[str, Any], "Basins", list[tuple[float, bool]]]:
    """The census of a realisation, its basins, and of each fixed point ρ and whether points around it come back."""
    import torch

    from fpstab.ensembles import RandomNetworks
    from fpstab.ensembles.census import fixed_point_census
    from fpstab.fixed_points import basins

    batch = RandomNetworks(each.depth, distribution=each.distribution).from_seeds([each.seed or 0])
    census = fixed_point_census(batch)
    picture = basins(batch.network(0), resolution=resolution, rule="paper", throw=False)
    angle = torch.arange(_AROUND, dtype=torch.float64) * (2 * torch.pi / _AROUND)
    circle = _CLOSE * torch.stack((angle.cos(), angle.sin()), 1)
    x = (census.points[:, None] + circle).reshape(1, -1, 2)
    for _ in range(_STEPS):
        x = batch(x)
    back = torch.linalg.vector_norm(x.reshape(-1, _AROUND, 2) - census.points[:, None], dim=2).amax(1) < _CLOSE
    details = {
        "points": "; ".join(f"({a:.4f}, {b:.4f})" for a, b in census.points.tolist()),
        "rho": "; ".join(f"{rho:.3f}" for rho in census.rho.tolist()),
        "basins": " ".join(map(str, census.basin_sizes(0))),
        "converged": float(census.share("fixed")[0]),
        "distance_from_origin": float(torch.linalg.vector_norm(census.points, dim=1).max()) if len(back) else None,
    }
    return details, picture, list(zip(census.rho.tolist(), back.tolist(), strict=True))


def _exists(claim: Claim, each: Realisation) -> Finding:
    share = each.found / each.searched
    if each.seed is None:
        return claim.found("inconclusive", f"None among {each.searched} networks.", share, None, each.searched)
    said = f"Seed {each.seed}; {each.found} of {each.searched} networks of this depth have Q = {each.q}."
    return claim.found("reproduced", said, share, None, each.searched)


def _origin(row: dict[str, Any]) -> Finding:
    unique = row["converged"] == 1 and ";" not in row["points"]
    far = row["distance_from_origin"]
    verdict: Verdict = "not reproduced" if not unique else "reproduced" if far < 1e-3 else "corrected"
    said = f"Seed {row['seed']}: fixed points {row['points']}, {row['converged']:.3f} of the starts converge."
    return ORIGIN.found(verdict, said, far)


def _interior(returns: Sequence[tuple[float, bool]]) -> Finding:
    stable = [back for rho, back in returns if rho < 1]
    verdict: Verdict = "inconclusive"
    if len(returns) >= 3:
        everywhere = all(back for _, back in returns)
        verdict = "reproduced" if everywhere else "corrected" if stable and all(stable) else "not reproduced"
    said = f"From all points around: {sum(stable)} of {len(stable)} stable ones, {sum(b for _, b in returns)} of {len(returns)} in all."
    return INTERIOR.found(verdict, said, None, None, len(returns))


def _draw(pictures: "Sequence[tuple[Realisation, Basins]]") -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(pictures), 3.5), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, len(pictures), squeeze=False)[0])
    for ax, (each, picture) in zip(axes, pictures, strict=True):
        picture.plot(ax)
        if ax.get_legend() is not None:
            ax.get_legend().remove()  # type: ignore[union-attr]
        ax.set_aspect("equal")
        ax.set_title(f"{each.distribution}, L = {each.depth}, Q = {each.q}\nseed {each.seed}", fontsize="medium")
    return figure

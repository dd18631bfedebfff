"""Where heavy-tailed networks contract, and where iteration converges (paper 2, §V)."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.experiments.blocks import Backend, Progress, run_blocks
from fpstab.experiments.claims import Claim, Study, Verdict
from fpstab.experiments.random_networks.censuses import first_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AREAS = Claim(
    2, "§V, heavy tails", "For Cauchy networks the areas where Φ contracts are the basins of attraction.",
    "by the share of nodes of the grid where ‖J(x)‖₂ < 1 holds if and only if the start converges: reproduced from .99 on, "
    "not reproduced below .95, else inconclusive. 20 networks.",
)  # fmt: skip

FULL: dict[str, dict[str, Any]] = {
    "areas": {"depths": (1, 2, 3, 5), "networks": 300, "widths": (100, 400, 1600), "draws": 200},
}
"""More networks than the paper names."""


def areas(
    *,
    seed: int = 0,
    depths: Sequence[int] = (1, 2),
    networks: int = 25,
    widths: Sequence[int] = (100, 400, 1600),
    draws: int = 20,
    out: Path | str | None = None,
    jobs: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> Study:
    """Whether Cauchy networks contract where starts converge, and whether their g has a limit for wide layers.

    Args:
        seed: Of the study.
        depths: L of the networks whose basins are found.
        networks: Of each depth.
        widths: N of layers 2 → N whose g is drawn again and again, Gaussian and Cauchy.
        draws: Of each of them.
        out: Folder for finished blocks, see `fpstab.experiments.blocks`.
        jobs: Blocks at once.
        backend: What runs them.
        progress: Is told the number of finished blocks and of all of the first part.

    Raises:
        ValueError: If a number is out of range.
    """
    options: dict[str, Any] = {"out": out, "jobs": jobs, "backend": backend}
    settings = [{"depth": depth, "first": first_seed(seed, depth), "count": networks} for depth in sorted(depths)]
    found = run_blocks(areas_block, settings, progress=progress, **options)
    spreads = [
        {"distribution": distribution, "width": width, "draws": draws, "seed": first_seed(seed, width)}
        for distribution in ("normal", "cauchy")
        for width in sorted(widths)
    ]
    spread = run_blocks(spread_block, spreads, **options)
    rows = [{"depth": s["depth"], "networks": networks} | f for s, f in zip(settings, found, strict=True)]
    rows += [
        {"distribution": s["distribution"], "width": s["width"], "draws": draws} | f
        for s, f in zip(spreads, spread, strict=True)
    ]
    values = {f"L{s['depth']}/agreement": float(f["agreement"]) for s, f in zip(settings, found, strict=True)}
    for s, f in zip(spreads, spread, strict=True):
        values[f"{s['distribution']}/N{s['width']}/relative_spread"] = float(f["relative_spread"])
    agreement = statistics.fmean(f["agreement"] for f in found)
    verdict: Verdict = "inconclusive"
    if networks * len(depths) >= 20:
        verdict = "reproduced" if agreement >= 0.99 else "not reproduced" if agreement < 0.95 else "inconclusive"
    inside = statistics.fmean(f["contracting"] for f in found)
    said = (
        f"‖J‖₂ < 1 at {inside:.2f} of the nodes, {statistics.fmean(f['converging'] for f in found):.2f} converge; both or "
        f"neither at {agreement:.2f}. g over draws of 2 → N spreads (quartiles over median) by "
        + "; ".join(f"{s['distribution']} N = {s['width']}: {f['relative_spread']:.2f}"
                    for s, f in zip(spreads, spread, strict=True)) + "."
    )  # fmt: skip
    finding = AREAS.found(verdict, said, agreement, None, networks * len(depths))
    return Study(tuple(rows), (finding,), lambda: _draw_areas(settings, networks), values)


def areas_block(*, depth: int, first: int, count: int) -> dict[str, Any]:
    """The shares of nodes where Cauchy networks contract, from which iteration converges, and where both or neither.

    Args:
        depth: L.
        first: The first seed.
        count: Networks.
    """
    contracting, converging = _contracting_and_converging(depth, range(first, first + count))
    return {
        "contracting": float(contracting.double().mean()),
        "converging": float(converging.double().mean()),
        "agreement": float((contracting == converging).double().mean()),
    }


def spread_block(*, distribution: str, width: int, draws: int, seed: int) -> dict[str, Any]:
    """How far g of layers 2 → N, tanh, of scale 1/N spreads over draws: quartiles over the median.

    Args:
        distribution: Of weights and biases.
        width: N.
        draws: How many.
        seed: The first.
    """
    from torch import Generator

    from fpstab.experiments.random_networks.slopes import gradient, scaled, unscaled

    found = [
        gradient(scaled(*unscaled((2, width), distribution=distribution, generator=Generator().manual_seed(seed + k)),
                        1 / width, "tanh"))
        for k in range(draws)
    ]  # fmt: skip
    low, middle, high = statistics.quantiles(found, n=4)
    return {"g_median": middle, "relative_spread": (high - low) / middle}


def _contracting_and_converging(depth: int, seeds: range) -> tuple[Any, Any]:
    import torch

    from fpstab.ensembles import RandomNetworks
    from fpstab.ensembles.census import fixed_point_census, grid
    from fpstab.fixed_points import OUTCOMES

    batch = RandomNetworks(depth).from_seeds(seeds)
    converging = fixed_point_census(batch).outcome == OUTCOMES.index("fixed")
    norms = torch.linalg.matrix_norm(batch.jacobian(grid().expand(len(seeds), -1, -1)), 2)
    return norms < 1, converging


def _draw_areas(settings: Sequence[dict[str, Any]], networks: int) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * min(networks, 4), 3 * len(settings)), layout="constrained")
    axes = figure.subplots(len(settings), min(networks, 4), squeeze=False)
    for line, each in zip(axes, settings, strict=True):
        seeds = range(each["first"], each["first"] + min(networks, 4))
        contracting, converging = _contracting_and_converging(each["depth"], seeds)
        for ax, seed, inside, ends in zip(line, seeds, contracting, converging, strict=True):
            picture = (2 * inside.long() + ends.long()).reshape(41, 41).T
            ax.imshow(picture.numpy(), origin="lower", extent=(-1, 1, -1, 1), cmap="viridis", vmin=0, vmax=3)
            ax.set_title(f"L = {each['depth']}, seed {seed}", fontsize="small")
    figure.suptitle("dark to light: neither, converges only, contracts only, both", fontsize="small")
    return figure

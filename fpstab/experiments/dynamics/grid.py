"""The whole grid of paper 3: 828 networks, what their orbits end in, and what is certified of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fpstab.activations import activation_info
from fpstab.experiments.claims import Claim, Finding, Study
from fpstab.experiments.dynamics.certificates import Judged, count, judge_stack
from fpstab.experiments.dynamics.models import ACTIVATIONS, GRID, Model, stacks
from fpstab.results import OK, Status
from fpstab.stability.attractors import LABELS
from fpstab.stability.plots import plane
from fpstab.stability.stacked_attractors import classify_stack

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONVENTIONS = {"activated": True, "linear": False}
"""Whether the output is activated, by name."""

_SURE = 1e-9
_WHOLE = 828
_COLOURS = {
    "single": "#3b6ea8", "multiple": "#64b5cd", "line": "#8172b3", "cycle": "#55a868", "chaotic": "#222222",
    "unstable": "#c8373f", "undetermined": "#bbbbbb",
}  # fmt: skip

NUMBER = Claim(
    3, "Appendix D", "The grid has 828 models.",
    "maps × depths × activations × bias on and off of the lists is that number",
    "828",
)  # fmt: skip
SUFFICIENT = Claim(
    3, "Theorem 6", "ρ(A_i) ≤ 1 of all weights and |σ(z)/z| ≤ 1 make a network globally stable.",
    "of all models of the run that meet it, with either output: no orbit leaves all bounds, and none ends in several attractors, a "
    "cycle or chaos (reproduced); one does (not reproduced); fewer than 8 meet it: inconclusive",
)  # fmt: skip
NECESSARY = Claim(
    3, "Theorem 6", "ρ(A*(x)) ≤ 1 at all x is necessary for global stability.",
    "of all models of the run with one fixed point that takes all 24 starts: ρ(A*) ≤ 1 + 1e-9 at all 576 points, with "
    "Λ = σ(z)/z (reproduced); above at a point of one with σ(0) = 0 (not reproduced); fewer than 8 of them: inconclusive",
)  # fmt: skip
BIAS = Claim(
    3, "§4", "Bias terms do not affect stability.",
    "all pairs of models that differ in the bias only have the same label, labels of both known (reproduced); one has not (not "
    "reproduced); fewer than 8 pairs: inconclusive",
)  # fmt: skip
CHAOS = Claim(
    3, "Figure 6", "Among the 828 models there is a chaotic one.",
    "a label 'chaotic' (a Lyapunov exponent above 0 by four standard errors) in the run (reproduced); none of all 828 (not "
    "reproduced); none of fewer: inconclusive",
)  # fmt: skip


def dynamics_grid828(
    *,
    seed: int = 0,
    models: int | Sequence[int] | None = None,
    conventions: Sequence[str] = ("activated", "linear"),
    certificates: bool = True,
    quadratic: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Study:
    """The grid of appendix D: what the orbits of each network end in, from 24 starts, and what is proved of it.

    Args:
        seed: Of the parameters.
        models: How many, evenly taken from the 828 in pairs with and without bias, or their numbers; by default all.
        conventions: Of the output, names from `CONVENTIONS`; the first one is certified and drawn.
        certificates: Whether to certify, and to try to refute what is certified by simulation.
        quadratic: Whether to solve the semidefinite programs of R3 and R4, too.
        progress: Called with the models that are done and their number.

    Raises:
        ValueError: If there is no model, or a convention is unknown.
    """
    numbers = _numbers(models)
    unknown = [name for name in conventions if name not in CONVENTIONS]
    if unknown or not conventions:
        raise ValueError(f"conventions={list(conventions)}: expected some of {', '.join(CONVENTIONS)}.")
    chosen = [GRID[number] for number in numbers]
    rows: list[dict[str, Any]] = [{"kind": "model", "number": number, **GRID[number].row()} for number in numbers]
    judged: dict[int, Judged] = {}
    total = len(numbers) * len(conventions)
    done = 0
    for name in conventions:
        for places, stack in stacks(chosen, seed=seed, activated=CONVENTIONS[name]):
            found = classify_stack(stack)
            rho = stack.affine(plane(24), mode="paper").spectral_radius()
            weights = torch.linalg.eigvals(stack.weights).abs().amax((1, 2))
            for i, place in enumerate(places):
                rows[place] |= _measured(
                    name, found.labels[i], found.counts[i], found.period[i], float(found.lyapunov[i])
                )
                rows[place] |= {f"{name}/rho_max": _top(rho[i]), "weights_rho": float(weights[i])}
            if certificates and name == conventions[0]:
                for place, each in zip(places, judge_stack(stack, found, quadratic=quadratic), strict=True):
                    judged[place] = each
                    rows[place] |= {
                        "certificates": " ".join(each.holding),
                        "value": each.value,
                        "false": "; ".join(each.false),
                        "simulated": each.simulated,
                    }
            done += len(places)
            if progress is not None:
                progress(done, total)
    counts = _count_rows(rows, conventions)
    values = {
        f"{row['convention']}/{row['label']}": float(row["models"]) for row in counts if row["activation"] == "all"
    }
    status = OK
    if certificates:
        every = list(judged.values())
        false = [each for each in every if each.false]
        values |= {f"certificates/{name}": float(number) for name, number in count(every).items()}
        values |= {
            "certificates/global": float(sum(e.certified for e in every)),
            "certificates/false": float(len(false)),
        }
        status = Status(
            "ok",
            f"{sum(e.certified for e in every)} of {len(every)} networks are certified; simulation refutes {len(false)}.",
        )
    findings = _findings(chosen, rows, conventions)
    return Study((*rows, *counts), findings, partial(_draw, counts, list(conventions), len(numbers)), values, status)


def _numbers(models: int | Sequence[int] | None) -> list[int]:
    if models is None:
        return list(range(len(GRID)))
    if isinstance(models, int):
        if not 1 <= models <= len(GRID):
            raise ValueError(f"models={models}: expected 1 to {len(GRID)}, or numbers of models.")
        pairs = (models + 1) // 2  # with and without bias
        firsts = [2 * round(k * (len(GRID) // 2 - 1) / max(pairs - 1, 1)) for k in range(pairs)]
        return [number for first in firsts for number in (first, first + 1)][:models]
    numbers = list(models)
    if not numbers or not all(0 <= number < len(GRID) for number in numbers):
        raise ValueError(f"models={numbers}: expected numbers from 0 to {len(GRID) - 1}.")
    return numbers


def _measured(name: str, label: str, counts: dict[str, int], period: int | None, lyapunov: float) -> dict[str, Any]:
    starts = " ".join(f"{what}:{number}" for what, number in sorted(counts.items()))
    return {f"{name}/label": label, f"{name}/starts": starts, f"{name}/period": period, f"{name}/lyapunov": lyapunov}


def _top(rho: Tensor) -> float:
    finite = rho[torch.isfinite(rho)]
    return float(finite.max()) if len(finite) else float("nan")


def _count_rows(rows: Sequence[dict[str, Any]], conventions: Sequence[str]) -> list[dict[str, Any]]:
    """How many models have which label, by activation and in all."""
    counted: list[dict[str, Any]] = []
    for name in conventions:
        for activation in ("all", *ACTIVATIONS):
            labels = Counter(row[f"{name}/label"] for row in rows if activation in ("all", row["activation"]))
            counted += [
                {"kind": "count", "convention": name, "activation": activation, "label": label, "models": labels[label]}
                for label in LABELS
            ]
    return counted


def _findings(
    models: Sequence[Model], rows: Sequence[dict[str, Any]], conventions: Sequence[str]
) -> tuple[Finding, ...]:
    number = len(GRID)
    whole = len(rows) == number
    labels = [
        (row, model, name, row[f"{name}/label"])
        for row, model in zip(rows, models, strict=True)
        for name in conventions
    ]
    chaotic = [(row, name) for row, _, name, label in labels if label == "chaotic"]
    verdict = "reproduced" if chaotic else "not reproduced" if whole else "inconclusive"
    said = f"{len(chaotic)} of {len(rows)} models are chaotic, in the conventions {', '.join(conventions)}."
    return (
        NUMBER.found("reproduced" if number == _WHOLE else "not reproduced", f"{number} models.", float(number)),
        _sufficient(labels),
        _necessary(labels),
        _bias(models, rows, conventions),
        CHAOS.found(verdict, said, float(len(chaotic)), None, len(rows)),  # type: ignore[arg-type]
    )


def _sector(activation: str) -> float:
    return activation_info(ACTIVATIONS[activation]()).sector


def _sufficient(labels: Sequence[tuple[dict[str, Any], Model, str, str]]) -> Finding:
    meeting = [
        (model, label)
        for row, model, _, label in labels
        if row["weights_rho"] <= 1 + _SURE and _sector(model.activation) <= 1
    ]
    broken = [(model, label) for model, label in meeting if label in ("unstable", "multiple", "cycle", "chaotic")]
    said = f"{len(broken)} of {len(meeting)} networks that meet it are not stable" + (
        f": {_counted(label for _, label in broken)}; the first: {broken[0][0]}, {broken[0][1]}." if broken else "."
    )
    verdict = "not reproduced" if broken else "reproduced" if len(meeting) >= 8 else "inconclusive"
    return SUFFICIENT.found(verdict, said, float(len(broken)), None, max(len(meeting), 1))  # type: ignore[arg-type]


def _necessary(labels: Sequence[tuple[dict[str, Any], Model, str, str]]) -> Finding:
    stable = [
        (row, model, name)
        for row, model, name, label in labels
        if label == "single" and row[f"{name}/starts"] == "fixed:24"
    ]
    above = [(row, model, name) for row, model, name in stable if row[f"{name}/rho_max"] > 1 + _SURE]
    plain = [each for each in above if activation_info(ACTIVATIONS[each[1].activation]()).value_at_zero == 0]
    said = (
        f"{len(above)} of {len(stable)} stable networks have ρ(A*) > 1 at a point, {len(plain)} of them with σ(0) = 0"
    )
    said += f"; the first of these: {plain[0][1]}, {plain[0][0][plain[0][2] + '/rho_max']:.3g}." if plain else "."
    verdict = "not reproduced" if plain else "reproduced" if len(stable) >= 8 and not above else "inconclusive"
    return NECESSARY.found(verdict, said, float(len(plain)), None, max(len(stable), 1))  # type: ignore[arg-type]


def _bias(models: Sequence[Model], rows: Sequence[dict[str, Any]], conventions: Sequence[str]) -> Finding:
    place = {model: i for i, model in enumerate(models)}
    pairs, differ = 0, Counter[str]()
    for model, i in place.items():
        other = Model(model.map, model.depth, model.activation, True)
        if model.bias or other not in place:
            continue
        for name in conventions:
            without, with_bias = rows[i][f"{name}/label"], rows[place[other]][f"{name}/label"]
            if "undetermined" in (without, with_bias):
                continue
            pairs += 1
            if without != with_bias:
                differ[f"{without} → {with_bias}"] += 1
    said = f"The label changes with the bias in {differ.total()} of {pairs} pairs" + (
        f": {', '.join(f'{change} {number}' for change, number in differ.most_common(5))}." if differ else "."
    )
    verdict = "not reproduced" if differ else "reproduced" if pairs >= 8 else "inconclusive"
    return BIAS.found(verdict, said, float(differ.total()), None, max(pairs, 1))  # type: ignore[arg-type]


def _counted(labels: Any) -> str:
    return ", ".join(f"{number} {label}" for label, number in Counter(labels).most_common())


def _draw(counts: Sequence[dict[str, Any]], conventions: Sequence[str], number: int) -> "Figure":
    """How many networks of each activation have which label, one panel a convention."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(conventions), 3.4), layout="constrained")
    names = list(ACTIVATIONS)
    for ax, convention in zip(figure.subplots(1, len(conventions), squeeze=False)[0], conventions, strict=True):
        left = [0.0] * len(names)
        for label in LABELS:
            wide = [
                float(row["models"])
                for activation in names
                for row in counts
                if (row["convention"], row["activation"], row["label"]) == (convention, activation, label)
            ]
            total = sum(wide)
            ax.barh(names, wide, left=left, color=_COLOURS[label], label=f"{label} {total:.0f}", height=0.75)
            left = [a + b for a, b in zip(left, wide, strict=True)]
        ax.invert_yaxis()
        ax.set_xlabel("networks")
        output = "activated output" if CONVENTIONS[convention] else "linear output"
        ax.set_title(f"{number} networks, {output}", fontsize=9)
        ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=4, frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
    return figure

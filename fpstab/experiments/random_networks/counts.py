"""The number of fixed points of heavy-tailed networks against depth (paper 1, Figure 3; paper 2, Figure 2; both schematic)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.experiments.blocks import Backend, Progress
from fpstab.experiments.claims import Claim, Finding, Study, Verdict
from fpstab.experiments.random_networks.censuses import Tally, tallies

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRINTED = {2: 2, 3: 3, 5: 5, 20: 1}
"""Q at a depth L, as printed with Figure 1 of paper 2 and Figure 2 of paper 1."""

_SIGMAS, _LEAST = 3.0, 25  # standard errors that decide, networks at least
_MODE_RULE = (
    "reproduced if at every printed depth that is run (three or more) the commonest Q is the printed one; not reproduced "
    "if at one of them another Q is commoner by more than 3 standard errors; else inconclusive. 25 networks a depth."
)
_MODE = "The commonest number of fixed points of Cauchy networks grows with depth, then falls to 1."
MODE_1 = Claim(1, "Figure 3 (schematic)", _MODE, _MODE_RULE, "2, 3, 5, 1 at L = 2, 3, 5, 20")
MODE_2 = Claim(2, "Figure 2 (schematic)", _MODE, _MODE_RULE, "2, 3, 5, 1 at L = 2, 3, 5, 20")
LIMIT = Claim(
    1, "Proposition 2", "Q → 1 as L → ∞; at L = 20 a Cauchy network has one fixed point, like a Gaussian one.",
    "reproduced if P(Q = 1) ≥ .95 at the greatest depth, 20 or more; not reproduced if below by more than 3 standard "
    "errors; else inconclusive. 25 networks.", "1",
)  # fmt: skip
STABLE = Claim(
    1, "Proposition 2, stability", "The fixed points found are stable.",
    "reproduced if ρ(J) < 1 at 99 % of all limits found, not reproduced below 95 %, else inconclusive. 25 limits.",
)  # fmt: skip
MANY = Claim(
    2, "abstract", "With heavy tails several fixed points emerge.",
    "reproduced if more than half of the networks of depths 2 to 5 have Q ≥ 2, not reproduced if fewer, by more than 3 "
    "standard errors; else inconclusive. 25 networks.",
)  # fmt: skip
PARTITION = Claim(
    2, "abstract, basins", "The basins of attraction partition the domain.",
    "reproduced if in 95 % of all networks every start converges; not reproduced if below by more than 3 standard "
    "errors; else inconclusive. 25 networks.",
)  # fmt: skip
READING = Claim(
    2, "§III, readings", "Some reading of what the paper leaves open (scale, biases, distribution) gives that pattern.",
    "by the rule of Figure 2 for each reading: reproduced if one reading reproduces it, not reproduced if all are "
    "refuted; else inconclusive.", "2, 3, 5, 1 at L = 2, 3, 5, 20",
)  # fmt: skip
UNIT_BIAS = Claim(
    1, "Proposition 2, Q → 1", "Q → 1 as L → ∞.",
    "corrected if, at the greatest depth (20 or more), P(Q = 1) ≥ .9 with biases of scale 1 and below .9 by more than 3 "
    "standard errors with the default reading; reproduced if ≥ .9 with both; else inconclusive. 20 networks.", "1",
)  # fmt: skip


def number_by_depth(
    *,
    seed: int = 0,
    depths: Sequence[int] = (1, 2, 3, 5, 20),
    networks: int = 25,
    width: int = 100,
    out: Path | str | None = None,
    jobs: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> Study:
    """Q of Cauchy networks against depth, with all outcomes: networks without a fixed point count.

    Args:
        seed: Of the study.
        depths: L.
        networks: Of each depth.
        width: Of the hidden layers.
        out: Folder for finished blocks, see `fpstab.experiments.blocks`.
        jobs: Blocks at once.
        backend: What runs them.
        progress: Is told the number of finished blocks and of all.

    Raises:
        ValueError: If a number is out of range.
    """
    laws = [{"depth": depth, "width": width} for depth in sorted(depths)]
    found = tallies(laws, networks, seed=seed, out=out, jobs=jobs, backend=backend, progress=progress)
    rows = tuple(tally.row() for tally in found)
    findings = [mode_finding(MODE_1, found), mode_finding(MODE_2, found), _limit(found), _stable(found)]
    pooled = [tally for tally in found if 2 <= tally.law["depth"] <= 5]
    some = [q >= 2 for tally in pooled for q in tally.q]
    whole = [share == 1 for tally in found for share in tally.shares["fixed"]]
    findings += [
        share_finding(MANY, some, 0.5, "of the networks of depths 2 to 5 have two fixed points or more"),
        share_finding(PARTITION, whole, 0.95, "of all networks send every start to a fixed point"),
    ]
    values = {f"L{row['depth']}/{key}": float(row[key]) for row in rows for key in _LOGGED}
    return Study(rows, tuple(findings), lambda: draw_outcomes(rows, "depth L"), values)


def readings(
    *,
    seed: int = 0,
    depths: Sequence[int] = (2, 3, 5),
    networks: int = 25,
    laws: Sequence[str] = ("bias=unit", "bias=none", "scale=1/fan_out", "scale=1/sqrt_fan_in"),
    deepest: int = 20,
    deep_networks: int = 20,
    out: Path | str | None = None,
    jobs: int | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> Study:
    """Q against depth under other readings of the papers, and what biases of scale 1 do to deep networks.

    Args:
        seed: Of the study.
        depths: L.
        networks: Of each depth and reading.
        laws: Readings, as what differs from the default, e.g. `"bias=unit, scale=1/fan_out"`.
        deepest: Depth at which the limit Q → 1 is looked at, or 0: not at all.
        deep_networks: Networks of that depth.
        out: Folder for finished blocks, see `fpstab.experiments.blocks`.
        jobs: Blocks at once.
        backend: What runs them.
        progress: Is told the number of finished blocks and of all, of the shallow networks, then of the deep ones.

    Raises:
        ValueError: If a number is out of range, or a reading is none.
    """
    options: dict[str, Any] = {"out": out, "jobs": jobs, "backend": backend, "progress": progress}
    given = {text: parse_reading(text) for text in laws}
    settings = [{"depth": depth} | law for law in given.values() for depth in sorted(depths)]
    found = tallies(settings, networks, seed=seed, **options)
    by_reading = {text: found[i * len(depths) : (i + 1) * len(depths)] for i, text in enumerate(given)}
    verdicts = {text: mode_finding(MODE_2, tallied).verdict for text, tallied in by_reading.items()}
    rows = [{"reading": text} | tally.row() for text, tallied in by_reading.items() for tally in tallied]
    counts = {v: list(verdicts.values()).count(v) for v in ("reproduced", "not reproduced", "inconclusive")}
    said = ", ".join(f"{n} {v}" for v, n in counts.items() if n)
    if counts["reproduced"]:
        overall: Verdict = "reproduced"
    else:
        overall = "inconclusive" if counts["inconclusive"] or not verdicts else "not reproduced"
    findings = [READING.found(overall, f"Of {len(given)} readings: {said}.", sample=networks * len(settings))]
    if deepest:
        deep = tallies(
            [{"depth": deepest, "bias": "unit"}, {"depth": deepest}], deep_networks, seed=seed, **options
        )  # fmt: skip
        rows += [{"reading": name} | t.row() for name, t in zip(("bias=unit", "default"), deep, strict=True)]
        findings.append(_unit_bias(*deep))
    odd = [q % 2 == 1 for tally in found if tally.law.get("bias") == "none" for q in tally.q]
    values = {f"{row['reading']}/L{row['depth']}/{key}": float(row[key]) for row in rows for key in _LOGGED}
    if odd:
        values["odd_without_bias"] = sum(odd) / len(odd)
    return Study(tuple(rows), tuple(findings), lambda: draw_outcomes(rows, "reading, depth"), values)


FULL: dict[str, dict[str, Any]] = {
    "number_by_depth": {"depths": (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30), "networks": 1000},
    "readings": {
        "depths": (2, 3, 5, 20),
        "networks": 300,
        "deep_networks": 300,
        "laws": tuple(
            ", ".join(part for part in (f"distribution={distribution}" * (distribution != "cauchy"),
                                        f"bias={bias}", f"scale={scale}") if part)
            for distribution in ("cauchy", "student-t(2)", "stable(1.5)")
            for bias in ("same", "unit", "none")
            for scale in ("1/fan_in", "1/fan_out", "1/sqrt_fan_in")
        ),
    },
}  # fmt: skip
"""The papers' size, by function; 27 readings."""

_LOGGED = ("q_mean", "p0", "p1", "p2", "converged", "any_cycle")


def parse_reading(text: str) -> dict[str, Any]:
    """The arguments of `RandomNetworks` in a text.

    Raises:
        ValueError: If it is none.

    >>> parse_reading("bias=unit, scale=0.5")
    {'bias': 'unit', 'scale': 0.5}
    """
    law: dict[str, Any] = {}
    for part in text.split(", "):
        name, equals, value = part.partition("=")
        if not equals or name not in ("bias", "scale", "distribution", "activation", "width"):
            raise ValueError(f"readings: {text!r}; expected 'NAME=VALUE, …' of arguments of RandomNetworks.")
        number = value.replace(".", "", 1).isdecimal()
        law[name] = int(value) if name == "width" else float(value) if number else value
    return law


def mode_finding(claim: Claim, found: Sequence[Tally]) -> Finding:
    """Whether the commonest Q is the printed one, by the rule of `MODE_2`."""
    printed = [(tally, PRINTED[tally.law["depth"]]) for tally in found if tally.law["depth"] in PRINTED]
    sample = min((len(tally) for tally, _ in printed), default=0)
    said = (
        "; ".join(
            f"L = {t.law['depth']}: mode {t.mode} (P = {t.p(t.mode):.2f}), P(Q = {q}) = {t.p(q):.2f} ± {t.p_error(q):.2f}"
            for t, q in printed
        )
        + "."
    )
    refuted = [tally.lead(tally.mode, q) > _SIGMAS for tally, q in printed]
    if sample < _LEAST:
        verdict: Verdict = "inconclusive"
    elif any(refuted):
        verdict = "not reproduced"
    else:
        alike = len(printed) >= 3 and all(tally.mode == q for tally, q in printed)
        verdict = "reproduced" if alike else "inconclusive"
    return claim.found(verdict, said, sample=sample)


def share_finding(claim: Claim, held: Sequence[bool], threshold: float, what: str) -> Finding:
    """Whether a share is above a threshold or below it by more than three standard errors."""
    if not held:
        return claim.found("inconclusive", "No network of these depths was run.", sample=0)
    share, n = sum(held) / len(held), len(held)
    error = (share * (1 - share) / n) ** 0.5
    verdict: Verdict = "inconclusive"
    if n >= _LEAST and threshold == 0.5 and abs(share - threshold) > _SIGMAS * max(error, 1 / n):
        verdict = "reproduced" if share > threshold else "not reproduced"
    elif n >= _LEAST and share >= threshold != 0.5:
        verdict = "reproduced"
    elif n >= _LEAST and share < threshold - _SIGMAS * max(error, 1 / n):
        verdict = "not reproduced"
    return claim.found(verdict, f"{share:.3f} ± {error:.3f} {what}.", share, error, n)


def _limit(found: Sequence[Tally]) -> Finding:
    deepest = max(found, key=lambda tally: tally.law["depth"])
    held = [q == 1 for q in deepest.q] if deepest.law["depth"] >= 20 else []
    return share_finding(LIMIT, held, 0.95, f"of the networks of depth {deepest.law['depth']} have Q = 1")


def _stable(found: Sequence[Tally]) -> Finding:
    limits, stable = sum(sum(tally.q) for tally in found), sum(sum(tally.stable) for tally in found)
    share = stable / max(limits, 1)
    verdict: Verdict = "inconclusive"
    if limits >= _LEAST:
        verdict = "reproduced" if share >= 0.99 else "not reproduced" if share < 0.95 else "inconclusive"
    return STABLE.found(verdict, f"ρ(J) < 1 at {stable} of {limits} limits.", share, None, limits)


def _unit_bias(unit: Tally, default: Tally) -> Finding:
    (one, one_error), (other, other_error) = ((t.p(1), t.p_error(1)) for t in (unit, default))
    verdict: Verdict = "inconclusive"
    if len(unit) >= 20 and unit.law["depth"] >= 20 and one >= 0.9:
        if other >= 0.9:
            verdict = "reproduced"
        elif other < 0.9 - _SIGMAS * max(other_error, 1 / len(default)):
            verdict = "corrected"
    said = (
        f"At L = {unit.law['depth']}: P(Q = 1) = {one:.2f} ± {one_error:.2f} with biases of scale 1, "
        f"{other:.2f} ± {other_error:.2f} with the default reading."
    )
    return UNIT_BIAS.found(verdict, said, one, one_error, len(unit))


def draw_outcomes(rows: Sequence[dict[str, Any]], label: str) -> "Figure":
    """Draw the distribution of Q as stacked bars, the mean, and where the starts go."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(7.0, 1.2 + 0.45 * len(rows)), 6.5), layout="constrained")
    axes: tuple[Axes, Axes] = figure.subplots(2, 1, sharex=True)
    names = [" ".join(str(row[key]) for key in ("reading", "activation", "depth") if key in row) for row in rows]
    x = range(len(rows))
    parts = (
        ("p0", "p1", "p2", "p3", "p4", "p5_or_more"),
        ("converged", "share_cycle", "share_slow", "share_bounded", "share_diverged"),
    )
    for ax, keys in zip(axes, parts, strict=True):
        bottom = [0.0] * len(rows)
        for key in keys:
            heights = [float(row[key]) for row in rows]
            name = key.replace("_or_more", "+").replace("share_", "").replace("p", "Q = ", 1 if key[0] == "p" else 0)
            ax.bar(x, heights, bottom=bottom, label=name)
            bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
        ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes[0].errorbar(x, [r["q_mean"] for r in rows], [r["q_error"] for r in rows], fmt="k.", label="mean Q")
    axes[0].set_ylabel("share of networks; points: mean Q")
    axes[1].set_ylabel("share of starts")
    axes[1].set_xticks(list(x), names, rotation=90 if len(rows) > 8 else 0, fontsize="small")
    axes[1].set_xlabel(label)
    return figure

"""The small computations of a paper together, as one study."""

import textwrap
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fpstab.experiments.claims import Finding, Study, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL: dict[str, dict[str, Any]] = {"check_claims": {}}
"""There is only one size."""

ROOMS: dict[int, tuple[str, ...]] = {
    1: ("paper1",),
    2: ("paper2",),
    3: ("paper3", "paper3_activations"),
    4: ("paper4", "paper4_nonlinear"),
    5: ("paper5",),
}
"""Where each paper's are."""

COLOURS: dict[Verdict, str] = {
    "reproduced": "#2e7d4f",
    "corrected": "#2456a6",
    "not reproduced": "#b3261e",
    "inconclusive": "#8a6d00",
}
"""Of the verdicts, in pictures."""

Check = Callable[..., Finding]


def checks_of(paper: int) -> tuple[Check, ...]:
    """The functions of a paper, each of a `seed`.

    Raises:
        ValueError: If the paper is not 1 to 5.
    """
    if paper not in ROOMS:
        raise ValueError(f"paper = {paper!r}; expected one of {', '.join(map(str, ROOMS))}.")
    rooms = (import_module(f"fpstab.experiments.corrections.{room}") for room in ROOMS[paper])
    return tuple(check for room in rooms for check in room.CHECKS)


def check_claims(*, paper: int, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> Study:
    """Run all small computations of a paper.

    Args:
        paper: 1 to 5.
        seed: Of each of them.
        progress: Called with how many are done, and of how many.

    Raises:
        ValueError: If the paper is not 1 to 5.
    """
    checks = checks_of(paper)
    findings = []
    for done, check in enumerate(checks, 1):
        findings.append(check(seed=seed))
        if progress is not None:
            progress(done, len(checks))
    rows = tuple(finding.row() for finding in findings)
    counts = {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in COLOURS}
    return Study(
        rows,
        tuple(findings),
        lambda: draw_findings(findings),
        {verdict.replace(" ", "_"): float(count) for verdict, count in counts.items()},
    )


def draw_findings(findings: Sequence[Finding]) -> "Figure":
    """Draw the findings as lines of text, each with the colour of its verdict."""
    from matplotlib.figure import Figure

    said = [textwrap.wrap(_plain(finding.said), 118) or [""] for finding in findings]
    total = sum(len(lines) + 1.6 for lines in said)
    figure = Figure(figsize=(11, 0.4 + 0.19 * total))
    ax = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    ax.set_axis_off()
    ax.set_xlim(0, 1)
    ax.set_ylim(total, 0)
    y = 0.6
    for finding, lines in zip(findings, said, strict=True):
        colour = COLOURS[finding.verdict]
        ax.plot(0.006, y, "o", color=colour, ms=6)
        ax.text(0.02, y, _plain(finding.claim.item), va="center", fontsize=9, weight="bold")
        ax.text(0.99, y, finding.verdict, va="center", ha="right", fontsize=9, color=colour)
        ax.text(0.02, y + 0.6, "\n".join(lines), va="top", fontsize=8, color="0.25", linespacing=1.2)
        y += len(lines) + 1.6
    return figure


def _plain(text: str) -> str:
    return text.replace("$", r"\$")

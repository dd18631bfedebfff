"""What a search says of itself: whether its fixed points can be counted, and whether they can be all."""

from collections.abc import Mapping

from torch import Tensor

from fpstab.fixed_points.coverage import Coverage
from fpstab.fixed_points.search import BOUNDED, NONFINITE, SLOW
from fpstab.results import OK, Status

_COUNTABLE = 0.5  # coverage below which a number of fixed points means nothing


def sum_of_indices(kinds: list[str], index: Tensor, kink: Tensor) -> tuple[int | None, str]:
    """The sum of the indices `[K]` of fixed points, or `None` and why it is not known."""
    if "non_isolated" in kinds:
        return None, "Fixed points that are not isolated have no index."
    unknown = [i for i, sign in enumerate(index.tolist()) if not sign]
    if unknown:
        why = (
            "the map has a kink there"
            if bool(kink[unknown[0]])
            else "it is marginal"
            if kinds[unknown[0]] == "marginal"
            else "its Jacobian is too large, or nearly singular"
        )
        return None, f"The index of {len(unknown)} fixed points is not known (of fixed point {unknown[0]}: {why})."
    return int(index.sum()), ""


def judge(
    kinds: list[str],
    outcome: Tensor,
    coverage: Mapping[str, Coverage],
    n_cycles: int,
    max_iter: int,
    n_doubtful: int,
    unresolved: bool,
) -> tuple[Status, int | None]:
    """How a search went, and how many fixed points there are, as far as they can be counted.

    `n_doubtful` candidates were left out: rounding does not tell them from places where orbits crawl. `unresolved` says
    that one of those reported is not known to any accuracy (a multiple root).
    """
    n = len(outcome)
    undecided = int(((outcome == SLOW) | (outcome == BOUNDED)).sum())
    remedy = f"{undecided} of {n} starts were undecided after {max_iter} iterations"
    if not kinds:
        if int((outcome == NONFINITE).sum()) == n:
            return Status("nonfinite", f"None of the {n} starts stayed finite: the map gives nan there."), 0
        if n_doubtful:
            what = f"{n_doubtful} places where I − J is singular to rounding may be fixed points or not"
            return Status("undecided", f"No fixed point was found: {what}."), None
        if undecided == n:
            return Status("undecided", f"No fixed point was found: {remedy}. Allow more (max_iter)."), None
        extra = f" {n_cycles} cycles were found." if n_cycles else f" {remedy}." if undecided else ""
        return Status("none", f"No fixed point was found from {n} starts.{extra}"), 0
    if "non_isolated" in kinds:
        what = f"{kinds.count('non_isolated')} of the {len(kinds)} fixed points found have others beside them"
        return Status("non_isolated", f"{what} (1 is an eigenvalue of the Jacobian): they cannot be counted."), None
    shares = [each.coverage for each in coverage.values() if each.coverage is not None]
    if shares and max(shares) < _COUNTABLE and n > 1:
        what = f"The starts know {max(shares):.0%} of where such starts go ({len(kinds)} fixed points found)"
        return Status("not_countable", f"{what}: they cannot be counted from {n} starts. Use more of them."), None
    if unresolved:
        what = "I − J is singular to rounding at a marginal fixed point, which may be one or several"
        return Status("not_countable", f"{what}: they cannot be counted."), None
    notes = [f"{remedy}."] if undecided else []
    if n_doubtful:
        notes.append(f"{n_doubtful} further places, where I − J is singular to rounding, may be fixed points or not.")
    return (Status("ok", " ".join(notes)) if notes else OK), len(kinds)

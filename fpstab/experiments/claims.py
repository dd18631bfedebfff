"""What the papers claim, the rule that decides on each claim, and what is found when it is run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fpstab.results import OK, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = Literal["reproduced", "corrected", "not reproduced", "inconclusive"]
"""`corrected`: not as printed, but what stands in its place here does hold. `inconclusive`: the sample is too small."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement of a paper that a run can hold or break.

    Attributes:
        paper: 1 to 5.
        item: Where it stands, e.g. `"Figure 2"`, `"Theorem 6"`, `"eq. (14)"`.
        text: What the paper says, in a sentence.
        rule: What decides, with its tolerance and the least sample: written down before any run.
        printed: The paper's number, as printed; empty if it prints none.
        revised: What was changed in the rule, or in the sample, after it had been run; empty if nothing was. Such a rule tells
            something only of draws that it has not seen.
    """

    paper: int
    item: str
    text: str
    rule: str
    printed: str = ""
    revised: str = ""

    def found(
        self, verdict: Verdict, said: str, value: float | None = None, error: float | None = None, sample: int = 1
    ) -> "Finding":
        """What a run has found.

        Args:
            verdict: By the rule.
            said: The numbers behind it, in a sentence.
            value: The number that decided.
            error: Its standard error, or the bound of its error.
            sample: How many draws are behind it.
        """
        return Finding(self, verdict, said, value, error, sample)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a run found of a claim.

    Attributes:
        claim: The claim, with its rule.
        verdict: By that rule.
        said: The numbers behind it, in a sentence.
        value: The number that decided; `None` if it is not one number.
        error: Its standard error, or the bound of its error; `None` for a number that is exact or stands alone.
        sample: How many draws are behind it.
    """

    claim: Claim
    verdict: Verdict
    said: str
    value: float | None = None
    error: float | None = None
    sample: int = 1

    def row(self) -> dict[str, Any]:
        """One row of the register of claims."""
        return {
            "paper": self.claim.paper,
            "item": self.claim.item,
            "claim": self.claim.text,
            "rule": self.claim.rule,
            "printed": self.claim.printed,
            "revised": self.claim.revised,
            "verdict": self.verdict,
            "found": self.said,
            "value": self.value,
            "error": self.error,
            "sample": self.sample,
        }

    def __str__(self) -> str:
        return f"Paper {self.claim.paper}, {self.claim.item}: {self.verdict}. {self.said}"


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A figure, a table or a theorem of a paper, anew.

    Attributes:
        rows: Every number that is plotted or printed, one place of the figure a row.
        findings: What became of the paper's claims.
        draw: Makes the picture.
        values: The numbers to log, by name.
        status: `"ok"`, with what is worth knowing of the run.
    """

    rows: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]
    draw: "Callable[[], Figure]"
    values: dict[str, float]
    status: Status = OK

    def table(self) -> list[dict[str, Any]]:
        """The rows, all with the same columns."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        return [{name: row.get(name) for name in columns} for row in self.rows]

    def scalars(self) -> dict[str, float]:
        """The numbers to log."""
        return dict(self.values)

    @property
    def verdict(self) -> str:
        """The findings, one a line."""
        return "\n".join(map(str, self.findings))

    def plot(self) -> "Figure":
        """The picture."""
        return self.draw()

"""What a structure promises of its weight, whatever its free parameters are."""

from dataclasses import dataclass
from typing import Literal

from fpstab.results import OK, Status

Norm = Literal["2", "inf", "log 2"]
"""The spectral norm, the largest absolute row sum, or the logarithmic 2-norm μ₂(W) = λ_max((W + Wᵀ)/2)."""


@dataclass(frozen=True, slots=True, eq=False)
class NormCertificate:
    """A bound of a norm of a structured weight that holds for every finite value of its free parameters.

    It holds for the weight as it is used, in its own precision: the structures shrink what they compute by what its
    rounding may add. What a layer's own product of weight and input loses is not counted.

    Attributes:
        structure: The class of the parametrisation.
        norm: Which norm; `None` if nothing is promised.
        bound: Norm ≤ bound; inf if nothing is promised. A logarithmic norm below 0 is a rate of contraction in
            continuous time, and says nothing of the iteration x ← W x.
        statement: What is promised in words, with what is only meant by it: the range of the eigenvalues or the
            singular values in exact arithmetic.
        status: `"ok"`, or `"uncertified"` with the reason.
    """

    structure: str
    norm: Norm | None
    bound: float
    statement: str
    status: Status = OK

    @property
    def certified(self) -> bool:
        """Whether a norm is bounded."""
        return self.norm is not None

    def scalars(self) -> dict[str, float]:
        """`bound`, and `certified` as 0 or 1."""
        return {"bound": self.bound, "certified": float(self.certified)}

    def __str__(self) -> str:
        return self.statement if self.status.ok else f"{self.statement} ({self.status.message})"

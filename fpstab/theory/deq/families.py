"""The families of random weights, as the theory sees them."""

from dataclasses import dataclass
from typing import Literal

FamilyName = Literal["iid", "orthogonal", "goe", "antisymmetric", "haar_disc"]
"""Families by their names; the initialisations are in `fpstab.ensembles.init`."""


@dataclass(frozen=True, slots=True)
class Elliptic:
    """The elliptic family: Gaussian, E W_ij² = V/N and E W_ij W_ji = τV/N off the diagonal.

    τ = 1 is `"goe"`, 0 is `"iid"`, −1 is `"antisymmetric"`.

    Attributes:
        tau: τ, from −1 to 1.

    Raises:
        ValueError: If τ is out of range.
    """

    tau: float

    def __post_init__(self) -> None:
        if not -1 <= self.tau <= 1:
            raise ValueError(
                f"Elliptic: tau is {self.tau}; expected a number from -1 (antisymmetric) to 1 (symmetric)."
            )

    def __str__(self) -> str:
        return f"elliptic(tau={self.tau:g})"


Family = FamilyName | Elliptic
"""A family: its name, or `Elliptic(tau)`."""

_TAU = {"iid": 0.0, "goe": 1.0, "antisymmetric": -1.0}
_OTHERS = ("orthogonal", "haar_disc")


def elliptic_tau(family: Family) -> float | None:
    """τ of an elliptic family, `None` of `"orthogonal"` and `"haar_disc"`, which are none.

    Raises:
        TypeError: If `family` is neither a name nor `Elliptic`.
        ValueError: If no family has this name. The message lists the names.

    >>> elliptic_tau("goe"), elliptic_tau(Elliptic(0.3)), elliptic_tau("orthogonal")
    (1.0, 0.3, None)
    """
    if isinstance(family, Elliptic):
        return family.tau
    if not isinstance(family, str):
        raise TypeError(f"the family is {family!r}; expected a name or Elliptic(tau).")
    if family in _TAU:
        return _TAU[family]
    if family in _OTHERS:
        return None
    raise ValueError(f"no family is called {family!r}; choose one of {', '.join([*_TAU, *_OTHERS])}, or Elliptic(tau).")


def check_printed(family: Family) -> str:
    """The name of a family of paper 4, for its formulas as printed.

    Raises:
        ValueError: If the paper prints nothing for this family.
    """
    tau = elliptic_tau(family)
    name = {0.0: "iid", 1.0: "goe"}.get(tau) if tau is not None else family
    if name not in ("iid", "orthogonal", "goe"):
        raise ValueError(f"paper 4 prints no formula for {family}; as_printed goes with iid, orthogonal and goe.")
    return str(name)


def check_v(V: float) -> None:
    """Refuse a V that is negative or not finite."""
    if not 0 <= V < float("inf"):
        raise ValueError(f"V is {V}; expected a finite number that is not negative, the mean of WᵀW's eigenvalues.")

"""Both properties of one network in one report, as the paper or the definitions have them, and what they say of stability."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from fpstab.orbits.chains import ChainMode
from fpstab.orbits.expansive import Constant, Expansivity, Kind, expansivity
from fpstab.orbits.observations import Orbits, Space
from fpstab.orbits.shadows import Rule, Shadowing, shadowing
from fpstab.results import OK, AnalysisError, Status

PresetName = Literal["paper", "definition"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A way to compute and to read the constants.

    Attributes:
        space: Where distances are taken.
        constant: Which of the expansive constants is the headline.
        chain_mode: As for `shadowing`.
        rule: As for `shadowing`.
    """

    space: Space
    constant: Kind
    chain_mode: ChainMode
    rule: Rule


PRESETS: dict[PresetName, Preset] = {
    "paper": Preset("prob", "block", "autonomous", "best_traced"),
    "definition": Preset("prob", "definition", "depth", "curve"),
}
"""`"paper"`: what the numbers of paper 5's Table 2 are, judging by their size; `"definition"`: what its definitions say,
for a network whose blocks differ."""


@dataclass(frozen=True, slots=True)
class StabilityEstimate:
    """Paper 5, Theorem 1: T_g ≥ Sh_g/Lip(g). With a Sh that was estimated on a sample, an estimate and no bound.

    Attributes:
        value: Sh/Lip(g).
        shadowing: Sh.
        lipschitz: Lip(g).
        lipschitz_of: Which g the constant is of, `"logits"` or `"probabilities"`; empty if that was not said.
        status: `"ok"`; `"undefined"` if the quotient is.
    """

    value: float
    shadowing: float
    lipschitz: float
    lipschitz_of: str
    status: Status

    def scalars(self) -> dict[str, float]:
        """The estimate and the constant in it."""
        return {"lipschitz": self.lipschitz, "stability": self.value}


def stability_estimate(
    shadowing: Shadowing | float, lipschitz: Any, lipschitz_of: str = "", *, throw: bool = True
) -> StabilityEstimate:
    """Estimate the topological g-stability constant by Sh/Lip(g) (paper 5, Theorem 1 and Table 2).

    The theorem as printed has counterexamples (the identity on {0, 1} × [0, 1], g the first coordinate); it holds when
    its condition (i) is read with distances through g. And Sh on a finite sample is an estimate. So is this.

    Args:
        shadowing: A result of `shadowing`, or its value.
        lipschitz: Lip(g), a number or a result with a `value` (`fpstab.lipschitz.head_lipschitz`).
        lipschitz_of: What g is: `"logits"` or `"probabilities"`. The paper measures Sh in probabilities and divides by
            the constant of the logits.
        throw: Raise if the quotient is undefined; otherwise it is nan.

    Raises:
        ValueError: If Lip(g) is negative or nan.
        AnalysisError: `"undefined"`: Sh is nan, or Lip(g) is 0.

    >>> round(stability_estimate(2.3583, 3.38).value, 4), round(stability_estimate(0.9867, 3.51).value, 4)
    (0.6977, 0.2811)
    """
    sh = shadowing.value if isinstance(shadowing, Shadowing) else float(shadowing)
    constant = float(getattr(lipschitz, "value", lipschitz))
    if math.isnan(constant) or constant < 0:
        raise ValueError(f"lipschitz={constant!r}: expected a constant ≥ 0.")
    status = OK
    if math.isnan(sh):
        status = Status("undefined", "the g-shadowing constant is undefined, and so is its quotient by Lip(g).")
    elif constant == 0:
        status = Status("undefined", "Lip(g) is 0: the head is constant, and every network is g-stable with it.")
    if throw and not status.ok:
        raise AnalysisError(status)
    return StabilityEstimate(sh / constant if status.ok else math.nan, sh, constant, lipschitz_of, status)


@dataclass(frozen=True, slots=True, eq=False)
class OrbitReport:
    """A row of paper 5's Table 2, and what is behind it.

    Attributes:
        expansivity: The three g-expansive constants.
        shadowing: The g-shadowing constant.
        stability: One Sh/Lip(g) for each Lip(g) given, by what g is.
        preset: How the headline was chosen.
        status: `"ok"` with what there is to say; the first failure otherwise.
    """

    expansivity: Expansivity
    shadowing: Shadowing
    stability: tuple[StabilityEstimate, ...]
    preset: PresetName
    status: Status

    @property
    def constant(self) -> Constant:
        """The g-expansive constant that the preset puts first."""
        found: Constant = getattr(self.expansivity, PRESETS[self.preset].constant)
        return found

    def scalars(self) -> dict[str, float]:
        """The constants, δ and ε, and for each g `lipschitz_<g>` and `stability_<g>`."""
        scalars = self.expansivity.scalars() | self.shadowing.scalars()
        for each in self.stability:
            suffix = f"_{each.lipschitz_of}" if each.lipschitz_of else ""
            scalars |= {f"{name}{suffix}": value for name, value in each.scalars().items()}
        return scalars

    def table(self) -> list[dict[str, Any]]:
        """One row, with what it was computed from (paper 5, Table 2)."""
        found = self.expansivity
        return [
            {"g_expansive": self.constant.value, "g_shadowing": self.shadowing.value}
            | {f"lipschitz_{each.lipschitz_of}": each.lipschitz for each in self.stability}
            | {f"stability_{each.lipschitz_of}": each.value for each in self.stability}
            | {"delta": self.shadowing.delta, "epsilon": self.shadowing.epsilon}
            | found.scalars()
            | {
                "N": found.n,
                "space": found.space,
                "head": found.head,
                "chain_mode": self.shadowing.chain_mode,
                "rule": self.shadowing.rule,
                "preset": self.preset,
            }
        ]


def orbit_report(
    orbits: Orbits,
    preset: PresetName = "paper",
    *,
    lipschitz: dict[str, Any] | None = None,
    same_class: bool = False,
    throw: bool = True,
) -> OrbitReport:
    """Measure everything that paper 5 says of a network.

    Args:
        orbits: The observations; a preset has a space, and they must be in it.
        preset: `"paper"` or `"definition"`; see `PRESETS`.
        lipschitz: Lip(g) by what g is, e.g. `{"logits": 3.4, "probabilities": 0.9}`: a number or a result with a
            `value`.
        same_class: As for `shadowing`.
        throw: Raise where a constant cannot be had; otherwise it is nan, and the status says why.

    Raises:
        ValueError: If the preset is unknown, or the observations are in another space.
        AnalysisError: As `expansivity` and `shadowing` do.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r}: expected one of {', '.join(PRESETS)}.")
    chosen = PRESETS[preset]
    if orbits.space != chosen.space:
        raise ValueError(f"preset={preset!r} takes distances in {chosen.space!r}, but the orbits are {orbits.space!r}.")
    expansive = expansivity(orbits, throw=throw)
    shadow = shadowing(orbits, chosen.chain_mode, chosen.rule, same_class, throw=throw)
    stability = tuple(stability_estimate(shadow, each, of, throw=False) for of, each in (lipschitz or {}).items())
    problems = [each for each in (expansive.status, shadow.status) if not each.ok and each.code != "undefined"]
    notes = " ".join(each.message for each in (orbits.status, expansive.status, shadow.status) if each.message)
    return OrbitReport(expansive, shadow, stability, preset, problems[0] if problems else Status("ok", notes))

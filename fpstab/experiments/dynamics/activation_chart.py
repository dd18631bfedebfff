"""Figure 1 of paper 3: which activations are stable. Each is scanned as it is, and looked up in the table of fpstab."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fpstab.activations import APLU, BLU, PELU, SoftExponential, activation_info
from fpstab.experiments.claims import Claim, Finding, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EXACT = 1e-9  # what a scan may be off by
_REACH, _SCANNED = 30.0, 60_001

ASYMPTOTIC = Claim(
    3, "Figure 1", "16 activations are asymptotically stable: σ(0) = 0 and Lipschitz constant ≤ 1.",
    "as scanned at their first parameters: so for all 16 (reproduced); else corrected if all are continuous or jump, with "
    "σ(0) = 0 and |σ(z)| ≤ |z|, so that what is left is the sector; else not reproduced",
    "SoftExponential, BLU, PReLU, ReLU, GELU, RReLU, Hardtanh, ReLU6, Tanh, ELU, CELU, Hardshrink, LeakyReLU, Softshrink, Softsign, Tanhshrink",
)  # fmt: skip
UNSTABLE = Claim(
    3, "Figure 1", "Eight activations have unstable regions.",
    "|σ(z)/z| > 1 somewhere for all eight and (σ(z) − σ(0))/z too (reproduced); the first only, for all of them (corrected: the "
    "instability is the division by z); else not reproduced",
    "APLU, PELU, Sigmoid, Hardsigmoid, Hardswish, SELU, LogSigmoid, Softplus",
)  # fmt: skip
BIBO = Claim(
    3, "Figure 1", "Sigmoid and Hardsigmoid have unstable regions, but are BIBO stable.",
    "both bounded, to the ends of the scan, and expansive somewhere (reproduced); bounded with a Lipschitz constant below 1 "
    "(corrected: nothing of them is unstable); else not reproduced",
)  # fmt: skip
LIPSCHITZ = Claim(
    3, "Lemma 8", "The Lipschitz constant of σ is |σ(z)/z|.",
    "the scanned Lipschitz constant equals sup |σ(z)/z| to 1e-6 for every activation with σ(0) = 0 (reproduced), else not",
)  # fmt: skip


def _aplu() -> APLU:
    """With slopes ½ on the left: with those that training begins with, 0, it is ReLU."""
    unit = APLU()
    with torch.no_grad():
        unit.a.fill_(0.5)
    return unit


STABLE_LIST: tuple[nn.Module, ...] = (
    SoftExponential(), BLU(), nn.PReLU(), nn.ReLU(), nn.GELU(), nn.RReLU().eval(), nn.Hardtanh(), nn.ReLU6(), nn.Tanh(),
    nn.ELU(), nn.CELU(), nn.Hardshrink(), nn.LeakyReLU(), nn.Softshrink(), nn.Softsign(), nn.Tanhshrink(),
)  # fmt: skip
UNSTABLE_LIST: tuple[nn.Module, ...] = (
    _aplu(), PELU(), nn.Sigmoid(), nn.Hardsigmoid(), nn.Hardswish(), nn.SELU(), nn.LogSigmoid(), nn.Softplus(),
)  # fmt: skip
TRAINED: tuple[nn.Module, ...] = (SoftExponential(0.5), BLU(0.5), PELU(1.5, 1.0))
"""Members of the families elsewhere than where training begins."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a scan of σ on [−30, 30] sees (for σ(z)/z up to ±1e8): estimates from below.

    Attributes:
        name: Of σ.
        listed: Where the paper puts it: `"stable"`, `"unstable"`, or `""` for other parameters.
        value_at_zero: σ(0).
        lipschitz: The largest slope of a chord in size; inf where σ jumps.
        sector: The largest |σ(z)/z| for |z| ≥ 0.001.
        shifted: The largest |σ(z) − σ(0)|/|z|.
        bounded: Whether its last tenth on both sides moves by less than 1e-3.
        table: fpstab's verdict, by its table.
    """

    name: str
    listed: str
    value_at_zero: float
    lipschitz: float
    sector: float
    shifted: float
    bounded: bool
    table: str


def dynamics_fig1(*, seed: int = 0) -> Study:
    """Figure 1: the activations in the paper's classes, with what is true of them.

    Args:
        seed: Not used: nothing is random.
    """
    del seed
    groups = (("stable", STABLE_LIST), ("unstable", UNSTABLE_LIST), ("", TRAINED))
    pairs = [(scan(sigma, listed), sigma) for listed, group in groups for sigma in group]
    found = [each for each, _ in pairs]
    stable, unstable = ([each for each in found if each.listed == name] for name in ("stable", "unstable"))
    findings = (_asymptotic(stable), _unstable(unstable), _bibo(unstable), _constants(found))
    z = torch.linspace(-4, 4, 161, dtype=torch.float64)
    rows: list[dict[str, Any]] = [{"kind": "activation"} | asdict(each) for each in found]
    curves = [(each, z, evaluate(sigma, z)) for each, sigma in pairs]
    for each, at, value in curves:
        rows += [
            {"kind": "curve", "name": each.name, "listed": each.listed, "z": x, "value": y}
            for x, y in zip(at.tolist(), value.tolist(), strict=True)
        ]
    values = {f"{each.name}/lipschitz": each.lipschitz for each in found if each.lipschitz < 1e6}
    return Study(tuple(rows), findings, partial(_draw, curves), values)


def evaluate(sigma: nn.Module, z: Tensor) -> Tensor:
    """σ(z) in float64, without a gradient; σ itself is left as it is."""
    with torch.no_grad():
        if isinstance(sigma, nn.PReLU):
            return torch.where(z >= 0, z, sigma.weight.double() * z)
        value: Tensor = sigma(z)
    return value


def scan(sigma: nn.Module, listed: str = "") -> Scanned:
    """Scan one activation."""
    z = torch.linspace(-_REACH, _REACH, _SCANNED, dtype=torch.float64)
    value = evaluate(sigma, z)
    zero = float(evaluate(sigma, torch.zeros(1, dtype=torch.float64)))
    chords = (value.diff() / z.diff()).abs()
    jumps = bool((value.diff().abs() > 0.1 + 50 * z.diff()).any())  # no slope here is above 50 where σ is of size 1
    size = value.diff().abs()
    jumps = jumps and float(size.max()) > 100 * float(size.median().clamp_min(1e-6))
    lipschitz = float("inf") if jumps else float(chords.max())
    far = torch.logspace(-3, 8, 2201, dtype=torch.float64)
    every = torch.cat((z[z.abs() >= 1e-3 - _EXACT], far, -far))
    at = evaluate(sigma, every)
    sector = float((at / every).abs().max())
    shifted = float(((at - zero) / every).abs().max())
    tenth = _SCANNED // 20
    bounded = all(float(end.max() - end.min()) < 1e-3 + _late(sigma) for end in (value[:tenth], value[-tenth:]))
    return Scanned(_name(sigma), listed, zero, lipschitz, sector, shifted, bounded, activation_info(sigma).verdict)


def _late(sigma: nn.Module) -> float:
    return 0.01 if isinstance(sigma, nn.Softsign) else 0.0  # 1/z² is slow


def _name(sigma: nn.Module) -> str:
    own = [value.item() for value in sigma.parameters()] if isinstance(sigma, SoftExponential | BLU | PELU) else []
    return type(sigma).__name__ + (f"({', '.join(f'{value:g}' for value in own)})" if own else "")


def _asymptotic(found: Sequence[Scanned]) -> Finding:
    wrong = [each for each in found if abs(each.value_at_zero) > _EXACT or each.lipschitz > 1 + _EXACT]
    outside = [each for each in found if abs(each.value_at_zero) > _EXACT or each.sector > 1 + _EXACT]
    verdict = "reproduced" if not wrong else "not reproduced" if outside else "corrected"
    said = "; ".join(f"{each.name} has Lipschitz constant {each.lipschitz:.4g}" for each in wrong) or "All 16 are."
    said += "" if outside or not wrong else "; |σ(z)| ≤ |z| holds for all 16"
    return ASYMPTOTIC.found(verdict, said + ".", float(len(wrong)), None, len(found))  # type: ignore[arg-type]


def _unstable(found: Sequence[Scanned]) -> Finding:
    paper = [each for each in found if each.sector > 1 + _EXACT]
    true = [each for each in found if each.shifted > 1 + _EXACT]
    verdict = "not reproduced" if len(paper) < len(found) else "reproduced" if len(true) == len(found) else "corrected"
    said = (
        f"|σ(z)/z| > 1 for {', '.join(each.name for each in paper)}; not for "
        f"{', '.join(each.name for each in found if each not in paper) or 'none'}. |σ(z) − σ(0)| > |z| only for "
        f"{', '.join(each.name for each in true) or 'none'}."
    )
    return UNSTABLE.found(verdict, said, float(len(true)), None, len(found))  # type: ignore[arg-type]


def _bibo(found: Sequence[Scanned]) -> Finding:
    both = [each for each in found if each.name in ("Sigmoid", "Hardsigmoid")]
    bounded = all(each.bounded for each in both)
    expansive = all(each.lipschitz > 1 for each in both)
    contractive = all(each.lipschitz < 1 for each in both)
    verdict = "not reproduced"
    if bounded and (expansive or contractive):
        verdict = "reproduced" if expansive else "corrected"
    said = ", ".join(f"{each.name}: bounded {each.bounded}, Lipschitz constant {each.lipschitz:.4g}" for each in both)
    return BIBO.found(verdict, said + ".", max(each.lipschitz for each in both), None, 2)  # type: ignore[arg-type]


def _constants(found: Sequence[Scanned]) -> Finding:
    asked = [each for each in found if abs(each.value_at_zero) <= _EXACT]
    wrong = [each for each in asked if not abs(each.lipschitz - each.sector) <= 1e-6]
    verdict = "not reproduced" if wrong else "reproduced"
    said = "; ".join(f"{each.name}: {each.lipschitz:.4g} against {each.sector:.4g}" for each in wrong) or "So for all."
    return LIPSCHITZ.found(verdict, said, float(len(wrong)), None, len(asked))  # type: ignore[arg-type]


_COLOURS = {
    "contractive": "#2c7a3f", "nonexpansive": "#79b486", "sector": "#d9a400", "expansive": "#c8373f", "discontinuous": "#777777",
}  # fmt: skip


def _draw(curves: Sequence[tuple[Scanned, Tensor, Tensor]]) -> "Figure":
    """Each activation in its own small panel, with the cone |y| ≤ |z| in blue and the colour of what is true of it."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns, rows = 7, -(-len(curves) // 7)
    figure = Figure(figsize=(11.5, 1.75 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (each, z, value) in zip(axes.flat, curves, strict=False):
        x, verdict = z.numpy(), each.table
        ax.fill_between(x, -abs(x), abs(x), color="#dbe7f5", lw=0)
        ax.plot(x, value.numpy(), lw=1.8, color=_COLOURS[verdict])
        ax.axhline(0, lw=0.4, color="#777777")
        ax.axvline(0, lw=0.4, color="#777777")
        ax.set_xlim(-4, 4)
        ax.set_ylim(-4, 4)
        where = {"stable": "paper: stable", "unstable": "paper: unstable regions"}.get(each.listed, "other parameters")
        ax.set_title(f"{each.name}\n{where}", fontsize=7, color="#c8373f" if _differs(each) else "#222222")
    handles = [Line2D([], [], color=colour, lw=2, label=name) for name, colour in _COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle("Activations; blue: |σ(z)| ≤ |z|; title in red: the paper says otherwise", fontsize=9)
    return figure


def _differs(each: Scanned) -> bool:
    true = each.table
    if each.listed == "stable":
        return true not in ("contractive", "nonexpansive")
    return each.listed == "unstable" and true != "expansive"

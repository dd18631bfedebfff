"""What was measured, in words: each sentence says what kind of knowledge it is, and what it does not mean."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from fpstab.report.runs import Series

Kind = Literal["proved", "counted", "estimated", "seen", "diagnostic", "failed"]

KINDS: dict[Kind, str] = {
    "proved": "holds for all inputs, by a certificate that was checked with rounding outward",
    "counted": "what a search found; how complete it is stands beside it",
    "estimated": "a number with an estimated error, at the points that were looked at",
    "seen": "observed from some starts or images, and nothing more",
    "diagnostic": "proves nothing",
    "failed": "was not measured",
}
"""What a kind of sentence means."""

Values = Mapping[str, float | None]

_ATTRACTORS = ("one fixed point", "several attractors", "a line of fixed points", "a cycle", "chaos",
               "orbits that leave all bounds", "nothing that could be determined")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sentence:
    """A statement of a report.

    Attributes:
        kind: What kind of knowledge it is; see `KINDS`.
        text: The statement.
    """

    kind: Kind
    text: str


def sentences(series: Series) -> list[Sentence]:
    """What a monitor's measurements say, the last beside the first."""
    said = []
    failed = [record for record in series.records if record.get("failed")]
    measured = series.measured
    if failed:
        why = next((str(each["message"]) for each in reversed(failed) if each.get("message")), "no reason was given")
        said.append(
            Sentence("failed", f"{len(failed)} of {len(series.records)} measurements failed. The last reason: {why}")
        )
    if not measured:
        return said or [Sentence("failed", "Nothing was measured.")]
    last = series.quantities(measured[-1])
    first = series.quantities(measured[0]) if len(measured) > 1 else {}
    speak = _SPEAKERS.get(series.analysis, _plain)
    spoken = list(speak(last, first, series))
    message = str(measured[-1].get("message") or "")
    if message and message != "remembered by the checkpoint":
        spoken.append(Sentence("seen", f"Of the last measurement: {message}"))
    return spoken + said


def number(value: float | None, digits: int = 3) -> str:
    """A value as it is printed.

    >>> number(0.123456), number(7.0), number(None), number(1e-9), number(123456.0)
    ('0.123', '7', '–', '1e-09', '123456')
    """
    if value is None:
        return "–"
    return str(int(value)) if value == int(value) and abs(value) < 1e6 else f"{value:.{digits}g}"


def _esd(last: Values, first: Values, series: Series) -> Iterator[Sentence]:
    layers = sum(name.endswith("/verdict") for name in last)
    before = f" ({number(first['n_heavy'])} at first)" if first.get("n_heavy") is not None else ""
    yield Sentence(
        "estimated",
        f"{number(last.get('n_heavy'))} of {layers} layers have a heavy-tailed spectrum{before}. The verdict rests on the "
        "Marchenko–Pastur bulk and on a likelihood ratio; an exponent alone does not tell light from heavy.",
    )
    then = f", {number(first.get('alpha_median'))} at first" if first else ""
    yield Sentence("estimated", f"The median exponent α is {number(last.get('alpha_median'))}{then}; "
                   f"{number(last.get('n_spikes'))} eigenvalues stand above the bulks.")  # fmt: skip


def _fixed_points(last: Values, first: Values, series: Series) -> Iterator[Sentence]:
    then = f" ({number(first.get('n_attracting'))} at first)" if first else ""
    yield Sentence(
        "counted",
        f"Found: {number(last.get('n_attracting'))} attracting{then}, {number(last.get('n_saddle'))} saddle and "
        f"{number(last.get('n_repelling'))} repelling fixed points, {number(last.get('n_cycles'))} cycles.",
    )
    if last.get("proof_complete"):
        yield Sentence("proved", f"In the box of the points there are exactly {number(last.get('proved_count'))} fixed points, "
                       f"of which {number(last.get('proved_stable'))} attract.")  # fmt: skip
    coverage = [
        f"{number(last[f'{source}/coverage'], 2)} for starts like the {source} points (Chao1 estimates "
        f"{number(last.get(f'{source}/chao1'))} limits)"
        for source in ("data", "uniform")
        if last.get(f"{source}/coverage") is not None
    ]
    if coverage:
        yield Sentence("estimated", f"How likely a new start ends at a known limit: {'; '.join(coverage)}.")
    missing = last.get("n_missing")
    if missing:
        yield Sentence(
            "counted", f"By the index formula at least {number(missing)} more exist, if the network is bounded."
        )
    if last.get("share_recovered") is not None:
        yield Sentence("seen", f"From {_percent(last['share_recovered'])} of the data iteration leads back to within the "
                       f"tolerance; {_percent(last.get('share_stored'))} have a fixed point that near.")  # fmt: skip


def _jacobian(last: Values, first: Values, series: Series) -> Iterator[Sentence]:
    then = f", {number(first.get('rho_max'))} at first" if first else ""
    yield Sentence(
        "estimated",
        f"ρ(J) is at most {number(last.get('rho_max'))} over the points (± {number(last.get('rho_error_max'), 2)}{then}), "
        f"{number(last.get('rho_median'))} in the middle; above 1 at {_percent(last.get('share_expanding'))} of them. Away from "
        "fixed points it describes the linearised map, not what orbits do.",
    )
    if last.get("sigma_max") is not None:
        yield Sentence("estimated", f"‖J‖₂ reaches {number(last['sigma_max'])}: at that point one step can stretch a small "
                       "difference by as much.")  # fmt: skip
    if last.get("residual_max") is not None:
        yield Sentence("seen", f"‖Φ(x) − x‖₂ at the points is {number(last['residual_max'])} at most; a residual is not the "
                       "distance to a fixed point.")  # fmt: skip


def _lipschitz(last: Values, first: Values, series: Series) -> Iterator[Sentence]:
    value = last.get("value")
    how = "LipSDP" if last.get("solved") else "the product of norms: the budget had no room for LipSDP"
    if value is None:
        yield Sentence("failed", "No bound of the Lipschitz constant could be certified.")
        return
    lower = max((last.get(name) or 0.0 for name in ("sampled_lower",)), default=0.0)
    below = f" It is at least {number(lower)} (a Jacobian that was seen)." if lower else ""
    then = f" (the first bound was {number(first.get('value'))})" if first else ""
    yield Sentence("proved", f"The Lipschitz constant is at most {number(value, 4)}, by {how}{then}.{below}")
    if value < 1:
        yield Sentence("proved", "It is below 1: where the part maps a space to itself it has exactly one fixed point, which "
                       "attracts every orbit.")  # fmt: skip


def _equilibrium(last: Values, first: Values, series: Series) -> Iterator[Sentence]:
    layers = sorted(
        {name.rpartition("forward/unconverged")[0] for name in last if name.endswith("forward/unconverged")}
    )
    for layer in layers:
        who = f"{layer.rstrip('/')}: " if layer else ""
        yield Sentence(
            "seen",
            f"{who}{_percent(last.get(f'{layer}forward/unconverged'))} of the forward solves at the points did not converge, "
            f"in {number(last.get(f'{layer}forward/iterations_mean'))} evaluations on average; "
            f"{_percent(last.get(f'{layer}backward/unconverged'))} of the backward ones.",
        )
        yield Sentence(
            "estimated",
            f"{who}the spectral radius of ∂f/∂z at the equilibria is {number(last.get(f'{layer}rho_max'))} at most "
            f"(± {number(last.get(f'{layer}rho_error_max'), 2)}); below 1 plain iteration converges near them.",
        )


def _stability(last: Values, first: Values, series: Series) -> Iterator[Sentence]:
    names = [name.removeprefix("value/") for name, value in last.items()
             if name.startswith("value/") and value is not None and value < 1 - 1e-4]  # fmt: skip
    if last.get("certified"):
        yield Sentence("proved", f"One fixed point attracts every orbit: proved by {', '.join(names)}, with the least value "
                       f"{number(last.get('value'), 4)}.")  # fmt: skip
    else:
        yield Sentence("diagnostic", f"No certificate holds (the least value is {number(last.get('value'), 4)}, not below 1). That "
                       "says nothing against the network.")  # fmt: skip
    label = last.get("attractor")
    if label is not None and 0 <= int(label) < len(_ATTRACTORS):
        exponent = last.get("lyapunov")
        also = f" The largest Lyapunov exponent is {number(exponent)}." if exponent is not None else ""
        yield Sentence(
            "seen", f"Orbits from the points and from uniform starts end in {_ATTRACTORS[int(label)]}.{also}"
        )
    if last.get("diagnostic/rho_affine_max") is not None:
        yield Sentence("diagnostic", f"ρ(A(x)) is at most {number(last['diagnostic/rho_affine_max'])} where it was looked at. "
                       "Paper 3's criterion on it is neither necessary nor sufficient.")  # fmt: skip


def _orbits(last: Values, first: Values, series: Series) -> Iterator[Sentence]:
    result = series.measured[-1].get("result")
    expansivity = result.get("expansivity") if isinstance(result, dict) else None
    images = f" on {expansivity['n']} images" if isinstance(expansivity, dict) and "n" in expansivity else ""
    yield Sentence(
        "seen",
        f"g-expansive constants{images}: {number(last.get('expansive_definition'))} by the definition, "
        f"{number(last.get('expansive_block'))} at a block, {number(last.get('expansive_mean'))} in the mean. They fall as the "
        "number of images grows: compare runs with equal numbers only.",
    )
    yield Sentence(
        "estimated",
        f"g-shadowing {number(last.get('shadowing'))}; Sh/Lip(g) = {number(last.get('stability_logits'))} with the constant to "
        "logits. This estimates topological g-stability and certifies nothing.",
    )


def _plain(last: Values, first: Values, series: Series) -> Iterator[Sentence]:
    named = [f"{name} = {number(value)}" for name, value in last.items() if name not in ("seconds", "failed")]
    yield Sentence("seen", f"Last measured: {', '.join(named[:6]) or 'nothing that is a number'}.")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.3g} %"


_SPEAKERS: dict[str, Callable[[Values, Values, Series], Iterator[Sentence]]] = {
    "esd": _esd,
    "fixed_points": _fixed_points,
    "jacobian": _jacobian,
    "lipschitz": _lipschitz,
    "equilibrium": _equilibrium,
    "stability": _stability,
    "orbits": _orbits,
}

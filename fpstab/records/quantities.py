"""What the logged quantities mean, and which of them belong in one chart: for TensorBoard, reports and live views."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

SHARES = "a share, 0 to 1"


@dataclass(frozen=True, slots=True)
class Quantities:
    """What a monitor logs.

    Attributes:
        question: What it answers.
        monitor: The monitor's class.
        charts: Titles of charts, each with its quantities: names below `fpstab/<name>/`, where `*` stands for a layer.
        meaning: A sentence for each quantity, by its name or the last part of it.
    """

    question: str
    monitor: str = ""
    charts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    meaning: Mapping[str, str] = field(default_factory=dict)

    def meaning_of(self, quantity: str) -> str:
        """What a quantity is: by its name, else by its last parts (those of a layer), else nothing.

        >>> QUANTITIES["esd"].meaning_of("net.0/alpha")
        'exponent α of the power law fitted to the tail of the spectrum'
        """
        parts = quantity.split("/")
        names = ("/".join(parts[start:]) for start in range(len(parts)))
        meaning = {**_EVERYWHERE, **self.meaning}
        return next((meaning[name] for name in names if name in meaning), "")


_EVERYWHERE = {
    "failed": "1 where the analysis failed and nothing was measured, else 0",
    "seconds": "what the measurement cost, in seconds",
}

_ATTRACTING = "fixed points that attract their neighbourhood (ρ(J) < 1)"

QUANTITIES: dict[str, Quantities] = {
    "esd": Quantities(
        "Heavy tails?",
        "ESDMonitor",
        {
            "exponent α of each layer's spectrum": ("*/alpha",),
            "layers whose tail is heavy": ("n_heavy",),
            "spikes above the bulk": ("*/n_spikes",),
            "largest singular values": ("*/largest_singular_value",),
        },
        {
            "alpha_median": "median over the layers of the exponent α; alone it does not tell light from heavy",
            "alpha_min": "least exponent α of a layer",
            "n_heavy": "layers whose verdict is heavy",
            "n_spikes": "eigenvalues above the edge of the Marchenko–Pastur bulk",
            "n_failed": "layers that could not be analysed",
            "alpha": "exponent α of the power law fitted to the tail of the spectrum",
            "ks_distance": "Kolmogorov–Smirnov distance of the tail to its power law",
            "n_tail": "eigenvalues in the tail",
            "largest_singular_value": "largest singular value of the weight",
            "verdict": "0 too few, 1 light, 2 light with spikes, 3 heavy, 4 not heavy, 5 undecided",
        },
    ),
    "fixed_points": Quantities(
        "How many attractors?",
        "FixedPointMonitor",
        {
            "fixed points by kind": ("n_attracting", "n_saddle", "n_repelling", "n_marginal"),
            "how complete the count is": ("data/coverage", "uniform/coverage"),
            "data that are stored, and recovered": ("share_stored", "share_recovered"),
            "where the starts end": ("share_fixed", "share_cycle", "share_diverged", "share_undecided"),
            "born and gone since last time": ("n_births", "n_deaths"),
        },
        {
            "n_attracting": _ATTRACTING,
            "n_saddle": "fixed points that attract in some directions and repel in others",
            "n_repelling": "fixed points that repel in all directions",
            "n_marginal": "fixed points with ρ(J) = 1 as far as can be told",
            "n_non_isolated": "points on a continuum of fixed points",
            "count": "all fixed points that were found; missing where they cannot be counted",
            "n_cycles": "periodic orbits that were found",
            "index_defect": "1 minus the sum of the indices: not 0 proves that some were missed, if values are bounded",
            "n_missing": "how many more there must be, by the index formula",
            "coverage": f"Good–Turing estimate: how likely a new start is to end at a known limit ({SHARES})",
            "chao1": "Chao1 estimate of the number of limits from such starts",
            "share_stored": f"points with a fixed point of any kind within the tolerance ({SHARES})",
            "share_recovered": f"points from which iteration leads back to within the tolerance ({SHARES})",
            "residual_max": "largest ‖Φ(x) − x‖₂ at the points",
            "residual_mean": "mean ‖Φ(x) − x‖₂ at the points",
            "rho_max_attracting": "largest ρ(J) at an attracting fixed point",
            "sigma_max_attracting": "largest ‖J‖₂ at an attracting fixed point",
            "n_births": "fixed points that are new since last time",
            "n_deaths": "fixed points that are gone since last time",
            "n_evals": "evaluations of the network",
            "proved_count": "proved number of all fixed points in the box of the points",
            "proved_stable": "proved number of those that attract",
            "proof_complete": "1 where that is proved, 0 where boxes are left unknown",
            "unknown_boxes": "boxes of which nothing could be proved",
            "share_fixed": f"starts that end at a fixed point ({SHARES})",
            "share_cycle": f"starts that end in a cycle ({SHARES})",
            "share_slow": f"starts that still approach something when iterations run out ({SHARES})",
            "share_bounded": f"starts that stay bounded without a limit that was seen ({SHARES})",
            "share_diverged": f"starts that leave all bounds ({SHARES})",
            "share_nonfinite": f"starts that become inf or nan ({SHARES})",
            "share_undecided": f"starts of which nothing can be said ({SHARES})",
        },
    ),
    "jacobian": Quantities(
        "Contracting?",
        "JacobianMonitor",
        {
            "spectral radius ρ(J)": ("rho_max", "rho_mean", "rho_median"),
            "norm ‖J‖₂": ("sigma_max", "sigma_mean"),
            "points where ρ(J) > 1": ("share_expanding",),
            "residual ‖Φ(x) − x‖₂": ("residual_max", "residual_mean"),
        },
        {
            "rho_max": "largest spectral radius ρ(J) over the points; at a fixed point below 1 means that it attracts",
            "rho_mean": "mean spectral radius ρ(J) over the points",
            "rho_median": "median spectral radius ρ(J) over the points",
            "rho_error_max": "largest estimated error of ρ(J)",
            "share_expanding": f"points with ρ(J) > 1 ({SHARES})",
            "share_non_normal": f"points where J is far from normal, so that ρ(J) says little of one step ({SHARES})",
            "share_converged": f"points where ρ(J) reached its tolerance ({SHARES})",
            "sigma_max": "largest ‖J‖₂ over the points: what one step does to a small difference at most there",
            "sigma_mean": "mean ‖J‖₂ over the points",
            "residual_max": "largest ‖Φ(x) − x‖₂ at the points; 0 where all of them are fixed points",
            "residual_mean": "mean ‖Φ(x) − x‖₂ at the points",
            "tail_verdict": "of JJᵀ at the first point: 0 too few, 1 light, 2 light with spikes, 3 heavy, 4 not heavy, 5 undecided",
        },
    ),
    "lipschitz": Quantities(
        "How far can it stretch a difference?",
        "LipschitzMonitor",
        {
            "Lipschitz constant, from above and below": ("value", "spectral_product", "slopes_lower", "sampled_lower"),
            "certified, and by LipSDP": ("certified", "solved"),
        },
        {
            "value": "certified upper bound of the Lipschitz constant in l2",
            "spectral_product": "certified product of the layers' norms, an upper bound",
            "eclipse_fast": "certified bound in closed form, an upper bound",
            "lipsdp": "certified bound by LipSDP",
            "optimum_lower": "the least that this form of the bound could reach",
            "slopes_lower": "largest norm of a Jacobian for some slopes of the activations: no bound by slopes is below",
            "sampled_lower": "largest ‖J‖₂ at the points, a lower bound of the constant",
            "rel_gap": "how far the bound is above what it could reach, relative",
            "certified": "1 where the bound is proved",
            "solved": "1 where LipSDP was solved, 0 where the budget had room for the product of norms only",
            "exact": "1 where no bound by weights and slopes can be better",
        },
    ),
    "equilibrium": Quantities(
        "Do the equilibria converge?",
        "EquilibriumMonitor",
        {
            "evaluations to converge": ("forward/iterations_mean", "backward/iterations_mean", "predicted_iterations"),
            "not converged": ("forward/unconverged", "backward/unconverged", "fallback", "dropped"),
            "spectral radius of the inner map": ("rho_max", "rho_median"),
            "in training": ("train/forward_iterations", "train/backward_iterations", "train/forward_unconverged"),
        },
        {
            "iterations_mean": "mean number of evaluations of the inner map",
            "iterations_max": "largest number of evaluations of the inner map",
            "unconverged": f"points that did not converge ({SHARES})",
            "residual_max": "largest residual ‖f(z) − z‖₂",
            "residual_median": "median residual ‖f(z) − z‖₂",
            "rate_median": "factor by which an evaluation lowers the residual, median",
            "fallback": f"points whose adjoint equation needed another solver ({SHARES})",
            "dropped": f"points without a gradient ({SHARES})",
            "rho_max": "largest spectral radius of ∂f/∂z at the equilibria: below 1 they attract",
            "rho_median": "median spectral radius of ∂f/∂z: the rate of plain iteration",
            "rho_error_max": "largest estimated error of the spectral radius",
            "share_expanding": f"points with a spectral radius of 1 or more ({SHARES})",
            "predicted_iterations": "evaluations that plain iteration would need, by the spectral radius",
            "speedup": "ln(measured rate)/ln(predicted rate): above 1 the solver beats plain iteration",
            "symmetry_defect": "of the inner weight: 0 symmetric, 0.71 independent entries, 1 antisymmetric",
            "orthogonality_defect": "of the inner weight: 0 a multiple of an orthogonal matrix",
            "sqrt_v": "scale √V of the inner weight",
            "train/forward_iterations": "evaluations of a forward solve in training, mean",
            "train/backward_iterations": "evaluations of a backward solve in training, mean",
            "train/forward_unconverged": f"training points whose forward solve did not converge ({SHARES})",
            "train/backward_unconverged": f"training points whose backward solve did not converge ({SHARES})",
        },
    ),
    "stability": Quantities(
        "Stable when iterated?",
        "StabilityMonitor",
        {
            "values of the certificates (below 1: proved)": ("value", "value/*"),
            "proved to be stable": ("certified",),
            "seen: what orbits end in": ("share_fixed", "share_cycle", "share_chaotic", "share_unstable"),
            "seen: Lyapunov exponent": ("lyapunov",),
            "diagnostics, which prove nothing": ("diagnostic/rho_affine_max", "diagnostic/norm_affine_max"),
        },
        {
            "certified": "1 where one fixed point is proved to attract every orbit; 0 says nothing against the network",
            "value": "least value of a global certificate: below 1 − 1e-4 it holds",
            "value/R1-1": "product of 1-norms and Lipschitz constants: below 1 proves a contraction",
            "value/R1-2": "product of 2-norms and Lipschitz constants: below 1 proves a contraction",
            "value/R1-inf": "product of ∞-norms and Lipschitz constants: below 1 proves a contraction",
            "value/R2-1": "as R1-1 with sup |σ(z)/z|, no biases: below 1 proves that the origin attracts everything",
            "value/R2-2": "as R1-2 with sup |σ(z)/z|, no biases: below 1 proves that the origin attracts everything",
            "value/R2-inf": "as R1-inf with sup |σ(z)/z|, no biases: below 1 proves that the origin attracts everything",
            "value/R3-lipsdp": "certified Lipschitz constant by LipSDP: below 1 proves a contraction",
            "value/R3-contraction": "certified rate in a quadratic norm: below 1 proves a contraction",
            "value/R3-sector": "certified rate in a quadratic norm, no biases: below 1, the origin attracts everything",
            "value/R4-contraction": "certified rate in one quadratic norm at all vertices: below 1 proves a contraction",
            "value/R4-sector": "certified rate in one quadratic norm at all vertices, no biases: below 1, the origin attracts",
            "n_local": "fixed points with a region that they are proved to attract",
            "rho_affine_max": "diagnostic: largest ρ(A(x)) at the points; proves nothing",
            "rho_affine_min": "diagnostic: least ρ(A(x)) at the points; proves nothing",
            "norm_affine_max": "diagnostic: largest ‖A(x)‖₂ at the points; proves nothing",
            "attractor": "seen: 0 single, 1 multiple, 2 line, 3 cycle, 4 chaotic, 5 unstable, 6 undetermined",
            "lyapunov": "seen: largest Lyapunov exponent, natural logarithm a step",
            "lyapunov_error": "standard error of the Lyapunov exponent",
            "period": "seen: period of the cycle that most starts go to",
            "share_fixed": f"starts that end at a fixed point ({SHARES})",
            "share_line": f"starts that end on a continuum of fixed points ({SHARES})",
            "share_cycle": f"starts that end in a cycle ({SHARES})",
            "share_chaotic": f"starts that end in chaos ({SHARES})",
            "share_unstable": f"starts that leave all bounds ({SHARES})",
        },
    ),
    "orbits": Quantities(
        "Expansive? Shadowing?",
        "OrbitMonitor",
        {
            "g-expansive constants": ("expansive_definition", "expansive_block", "expansive_mean"),
            "g-shadowing": ("shadowing",),
            "δ and ε of the best-traced chain": ("delta", "epsilon"),
            "estimate of topological g-stability": ("stability_logits", "stability_probabilities"),
        },
        {
            "expansive_definition": "least over pairs of the largest distance over the blocks; falls with the number of images",
            "expansive_block": "least over pairs and blocks of the distance; falls with the number of images",
            "expansive_mean": "least over pairs of the mean distance over the blocks; falls with the number of images",
            "shadowing": "g-shadowing constant δ/ε of the best-traced chain, on this sample",
            "delta": "largest step of the best-traced chain",
            "epsilon": "how far its tracer strays from it",
            "lipschitz_logits": "certified Lipschitz constant of the head, to logits",
            "lipschitz_probabilities": "certified Lipschitz constant of the head, to probabilities",
            "stability_logits": "estimate Sh/Lip(g) with the constant to logits, as the paper has it; nothing certified",
            "stability_probabilities": "estimate Sh/Lip(g) with the constant to probabilities; nothing certified",
        },
    ),
}
"""By `Monitor.analysis`."""


def quantities_of(analysis: str) -> Quantities:
    """What is known of a monitor's quantities; of one that is not fpstab's, that its name is its question."""
    return QUANTITIES.get(analysis, Quantities(analysis.replace("_", " ")))


def parts_of(state_key: str) -> tuple[str, str]:
    """Analysis and name of a monitor from its key in lines and checkpoints.

    >>> parts_of("LipschitzMonitor[head]"), parts_of("PhaseMonitor[phase]")
    (('lipschitz', 'head'), ('phase', 'phase'))
    """
    monitor, _, name = state_key.removesuffix("]").partition("[")
    return next((analysis for analysis, each in QUANTITIES.items() if each.monitor == monitor), name), name


def pattern_of(name: str, quantity: str) -> str:
    """A regular expression for the keys of a quantity of the monitor `name`, where `*` stands for a layer.

    >>> pattern_of("esd", "*/alpha")
    '^fpstab/esd/.+/alpha$'
    """
    return "^" + re.escape(f"fpstab/{name}/") + ".+".join(map(re.escape, quantity.split("*"))) + "$"

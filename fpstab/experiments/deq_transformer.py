"""Figure 6 and Table 1 of paper 4: deep-equilibrium transformers on text, by the family and the scale of the dense maps.

A sweep over families, √V and seeds in two settings: `paper` (dense maps widened fourfold but for the GOE, 20 steps of
Broyden's method, embeddings as small as in the code that the paper modified) and `square` (every family in the same
square shape, a solver that reaches the equilibrium). The runs are independent and go through joblib.
"""

import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.experiments.claims import Claim, Finding, Study, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from fpstab.models import DEQTransformer

SETTINGS = ("paper", "square")

FULL: dict[str, dict[str, Any]] = {
    "perplexity_by_scale": {
        "sqrt_vs": (0.1, 0.3, 1.0),
        "seeds": 10,
        "width": 700,
        "length": 128,
        "batch_size": 512,
        "steps": 52_000,
        "warmup": 2_000,
        "learning_rate": 1e-3,
        "tokenizer": "word",
        "vocabulary": 32_000,
    },
}
"""The paper's size, by function; it tokenises by a sentencepiece model that it does not name, here words stand in for it."""

_SEEDS = 5  # of each family and √V; fewer tell nothing of averages, extremes or failures
_TELLING = 0.01  # nats a token, 1 % of the perplexity; less is not told apart between two best seeds
_FAILED = math.log(2)  # nats above the median of all trainings of a setting, twice its perplexity
_SEQUENCES = 32  # of the test, at least, to judge a solver by
_COLOURS = ("#4c72b0", "#55a868", "#c44e52", "#8172b3", "#ccb974", "#64b5cd")
_LEAST = f"at least {_SEEDS} seeds"

BEST_AVERAGE = Claim(
    4,
    "Table 1",
    "The average test loss is best for the GOE at every √V.",
    f"paper's setting, {_LEAST}: at every √V the GOE's mean loss is below the random's and the orthogonal's by 2 s.e. of the "
    "difference (reproduced); above one of them by as much at some √V (not reproduced); else inconclusive",
    "√V = 0.1, 0.3, 1: GOE 71.8, 69.8, 68.3; orthogonal 162.7, 173.4, 112.1; random 153.9, 224.9, 481.5",
)
LARGE_SCALE = Claim(
    4,
    "Table 1",
    "On average orthogonal is better than random at large √V.",
    f"paper's setting, {_LEAST}, largest √V: orthogonal's mean loss is below random's by 2 s.e. of the difference "
    "(reproduced), above by as much (not reproduced), else inconclusive",
    "112.1 against 481.5 at √V = 1",
)
WORST_BEST = Claim(
    4,
    "Table 1",
    "Comparing the best seeds, the GOE performs worst.",
    f"paper's setting, {_LEAST}: at every √V the GOE's least loss is above the others' by {_TELLING} nats (reproduced); at "
    "some √V it is not above both (not reproduced); else inconclusive",
    "√V = 0.1, 0.3, 1: GOE 68.1, 66.1, 66.3; orthogonal 60.7, 60.5, 57.4; random 56.8, 56.3, 55.6",
)
SAME_SHAPE = Claim(
    4,
    "§4.3",
    "The GOE trades performance for stability: its best seeds are the worst because of the family, not of its square shape.",
    f"all families square and at equilibrium, {_LEAST}: the rule of the claim on the best seeds",
)
FAILURES = Claim(
    4,
    "Figure 6",
    "All trainings of the GOE converge; of random ones at √V = 1 many do not.",
    f"paper's setting, {_LEAST}; failed: a loss not finite, or ln 2 above the median of all trainings. No GOE fails and at "
    "the largest √V a fifth or more of the random do (reproduced); a GOE fails, or no random does (not reproduced); else "
    "inconclusive",
)
BROYDEN = Claim(
    4,
    "Appendix D",
    "20 steps of Broyden's method find the equilibrium.",
    f"paper's setting after training, at least {_SEQUENCES} test sequences a training: ≥ 95 % within the tolerance in every "
    "training (reproduced), < 50 % in some training (not reproduced), else inconclusive",
)
CLAIMS = (BEST_AVERAGE, LARGE_SCALE, WORST_BEST, SAME_SHAPE, FAILURES, BROYDEN)


@dataclass(frozen=True, slots=True)
class TrainedTransformer:
    """One training.

    Attributes:
        setting: `"paper"` or `"square"`.
        family: Of the dense maps at first.
        sqrt_v: √V at first.
        seed: Of parameters and batches.
        loss: Of the test, in nats a token, with the solver it was trained with.
        loss_at_equilibrium: Of the same test sequences and weights, with Anderson's method and up to 200 evaluations.
        converged_first: Share of the training sequences within the tolerance, mean over the first tenth of the steps.
        converged: The same of the test sequences, after training.
        residual: ‖f(z) − z‖/√d of the test sequences, mean.
        leak: How far the logits of the first half of a sequence move, relative to their length, when the second half is
            replaced; 0 for a causal model.
        sequences: Test sequences.
        skipped: Steps left out for a gradient that was not finite.
        seconds: Of the training.
    """

    setting: str
    family: str
    sqrt_v: float
    seed: int
    loss: float
    loss_at_equilibrium: float
    converged_first: float
    converged: float
    residual: float
    leak: float
    sequences: int
    skipped: int
    seconds: float


def perplexity_by_scale(
    families: Sequence[str] = ("random", "orthogonal", "goe"),
    *,
    settings: Sequence[str] = SETTINGS,
    sqrt_vs: Sequence[float] = (0.1, 1.0),
    seeds: int = 1,
    seed: int = 0,
    width: int = 32,
    length: int = 32,
    batch_size: int = 16,
    steps: int = 60,
    warmup: int = 10,
    learning_rate: float = 3e-3,
    tokenizer: str = "byte",
    vocabulary: int | None = None,
    data: str | Path = "data",
    jobs: int | None = None,
) -> Study:
    """Figure 6 and Table 1: the test perplexity of deep-equilibrium transformers against √V, by family.

    Args:
        families: Of the dense maps.
        settings: `"paper"`, `"square"` or both.
        sqrt_vs: √V.
        seeds: Trainings of each setting, family and √V.
        seed: The first of their seeds.
        width: Of the state.
        length: Of a sequence.
        batch_size: Sequences in a batch.
        steps: Of every training.
        warmup: Of them, until the full learning rate; the rest follows a cosine to 0.
        learning_rate: Adam's.
        tokenizer: As of `fpstab.models.TextData`; perplexities of different ones cannot be compared.
        vocabulary: Tokens at most, for tokenizers that learn them.
        data: Folder that may hold WikiText-103; otherwise the topics of Python's `help()`.
        jobs: Trainings at once; `None`: one, or as `joblib.parallel_config` says.

    Raises:
        ValueError: If a number is out of range or a name is unknown.

    Returns:
        A row for each setting, family and √V, and what became of the claims.
    """
    if seeds < 1 or not families or not sqrt_vs or not settings or not set(settings) <= set(SETTINGS):
        raise ValueError(
            f"seeds={seeds}, families={families}, sqrt_vs={sqrt_vs}, settings={settings}: expected at least one of each, "
            f"and settings of {', '.join(SETTINGS)}."
        )
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup}, steps={steps}: expected a warm-up of fewer steps than there are.")
    from joblib import Parallel, delayed  # type: ignore[import-untyped]

    sizes = {
        "width": width,
        "length": length,
        "batch_size": batch_size,
        "steps": steps,
        "warmup": warmup,
        "learning_rate": learning_rate,
        "tokenizer": tokenizer,
        "vocabulary": vocabulary,
        "data": str(data),
    }
    runs: list[TrainedTransformer] = Parallel(n_jobs=jobs)(
        delayed(train_once)(setting, family, sqrt_v, seed + k, **sizes)
        for setting in settings
        for family in families
        for sqrt_v in sorted(sqrt_vs)
        for k in range(seeds)
    )
    return study_of(runs)


def train_once(
    setting: str,
    family: str,
    sqrt_v: float,
    seed: int,
    *,
    width: int,
    length: int,
    batch_size: int,
    steps: int,
    warmup: int,
    learning_rate: float,
    tokenizer: str = "byte",
    vocabulary: int | None = None,
    data: str = "data",
) -> TrainedTransformer:
    """Train one transformer. Depends on the seed alone, and leaves the global generators as they were."""
    from functools import partial

    import torch
    from pytorch_lightning import Trainer
    from torch.utils.data import DataLoader

    from fpstab.callbacks import SkipNonFiniteSteps
    from fpstab.equilibrium import Anderson, Broyden
    from fpstab.experiments.console import quiet_lightning
    from fpstab.models import DEQTransformer, LanguageTask, TextData

    quiet_lightning()
    start = time.perf_counter()
    with torch.random.fork_rng(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message="FixedPointLayer: ")  # counted
        torch.manual_seed(seed)
        text = TextData(data, tokenizer=tokenizer, vocabulary=vocabulary, length=length, batch_size=batch_size)
        text.setup()
        paper = setting == "paper"
        net = DEQTransformer(
            text.tokens.size,
            length,
            width,
            inner=None if paper else width,
            family=family,  # type: ignore[arg-type]
            sqrt_v=sqrt_v,
            embedding_std=0.02 if paper else 1.0,
            solver=Broyden(max_iter=20) if paper else Anderson(),
            on_failure="warn" if paper else "mask",
            seed=seed,
        )
        shares: list[float] = []
        net.equilibrium.layer.register_forward_hook(lambda layer, *_: shares.append(_solve_of(layer)[0].mean().item()))
        optimizer = partial(torch.optim.Adam, lr=learning_rate)
        task, skip = LanguageTask(net, optimizer, warmup, steps - warmup), SkipNonFiniteSteps()
        Trainer(
            max_steps=steps,
            devices=1,
            accelerator="cpu",
            default_root_dir=folder,
            logger=False,
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[skip],
        ).fit(task, datamodule=text)
        seconds = time.perf_counter() - start
        first = statistics.fmean(shares[: max(steps // 10, 1)])
        count = min(len(text.test_set), max(_SEQUENCES, batch_size))
        batches = list(DataLoader([text.test_set[i] for i in range(count)], batch_size))  # type: ignore[arg-type]
        loss, converged, residual = _tested(net.eval(), batches)
        leak = _leak(net, batches[0][0])
        net.equilibrium.layer.solver = Anderson(max_iter=200)
        at_equilibrium, _, _ = _tested(net, batches)
    return TrainedTransformer(
        setting,
        family,
        sqrt_v,
        seed,
        loss,
        at_equilibrium,
        first,
        converged,
        residual,
        leak,
        count,
        skip.skipped,
        seconds,
    )


def study_of(runs: Sequence[TrainedTransformer]) -> Study:
    """What trainings say: the rows of the table, and the verdicts by the rules of `CLAIMS`."""
    rows = tuple(_row(group) for group in _groups(runs).values())
    values = {
        f"{row['setting']}/{row['family']}/{row['sqrt_v']:g}/{key}": float(row[key])
        for row in rows
        for key in ("min", "average", "converged", "residual", "leak")
    }
    return Study(rows, tuple(_findings(runs)), lambda: _draw(rows), values)


def _tested(net: "DEQTransformer", batches: "Sequence[Sequence[Tensor]]") -> tuple[float, float, float]:
    """Loss a token, share converged, and mean of ‖f(z) − z‖/√d."""
    import torch
    from torch.nn.functional import cross_entropy

    losses, shares, residuals = [], [], []
    with torch.no_grad():
        for tokens, targets in batches:
            logits = net(tokens).double()
            losses.append(cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none"))
            converged, residual = _solve_of(net.equilibrium.layer)
            shares.append(converged)
            residuals.append(residual / math.sqrt(tokens.shape[1] * net.width))
    return tuple(float(torch.cat(each).mean()) for each in (losses, shares, residuals))  # type: ignore[return-value]


def _solve_of(layer: Any) -> "tuple[Tensor, Tensor]":
    """Which samples of a `FixedPointLayer`'s last call converged, as 0 or 1, and their residuals, float64 `[B]`."""
    last = layer.last.forward
    return last.converged.double(), last.residual


def _leak(net: "DEQTransformer", tokens: "Tensor") -> float:
    import torch

    half = tokens.shape[1] // 2
    other = torch.cat((tokens[:, :half], tokens.roll(1, 0)[:, half:]), 1)  # the second halves of other sequences
    with torch.no_grad():
        before, after = (net(each)[:, :half].double() for each in (tokens, other))
    return float((after - before).norm() / before.norm())


def _groups(runs: Sequence[TrainedTransformer]) -> dict[tuple[str, str, float], list[TrainedTransformer]]:
    found: dict[tuple[str, str, float], list[TrainedTransformer]] = {}
    for run in runs:
        found.setdefault((run.setting, run.family, run.sqrt_v), []).append(run)
    return found


def _row(runs: Sequence[TrainedTransformer]) -> dict[str, Any]:
    first = runs[0]
    perplexities = [math.exp(min(run.loss, 700.0)) for run in runs]  # nan stays nan
    means = (
        "loss",
        "loss_at_equilibrium",
        "converged_first",
        "converged",
        "residual",
        "leak",
        "seconds",
    )
    return {
        "setting": first.setting,
        "family": first.family,
        "sqrt_v": first.sqrt_v,
        "seeds": len(runs),
        "min": min(perplexities),
        "average": statistics.fmean(perplexities),
        **{name: statistics.fmean(asdict(run)[name] for run in runs) for name in means},
        "skipped": sum(run.skipped for run in runs),
    }


def _findings(runs: Sequence[TrainedTransformer]) -> list[Finding]:
    paper = [run for run in runs if run.setting == "paper"]
    square = [run for run in runs if run.setting == "square"]
    return [
        _best_average(paper),
        _large_scale(paper),
        _worst_best(WORST_BEST, paper),
        _worst_best(SAME_SHAPE, square),
        _failures(paper),
        _broyden(paper),
    ]


def _losses(runs: Sequence[TrainedTransformer], family: str, sqrt_v: float) -> list[float]:
    """Of the seeds; a loss that is not finite is infinite, so that it is the worst."""
    found = [run.loss for run in runs if (run.family, run.sqrt_v) == (family, sqrt_v)]
    return [loss if math.isfinite(loss) else math.inf for loss in found]


def _enough(runs: Sequence[TrainedTransformer], families: Sequence[str], sqrt_vs: Sequence[float]) -> bool:
    return bool(sqrt_vs) and all(len(_losses(runs, f, v)) >= _SEEDS for f in families for v in sqrt_vs)


def _too_small(claim: Claim, runs: Sequence[TrainedTransformer]) -> Finding:
    said = f"{len(runs)} trainings, at most {max((len(g) for g in _groups(runs).values()), default=0)} seeds: too few."
    return claim.found("inconclusive", said, sample=len(runs))


def _difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Mean of a − mean of b, and its standard error; where a loss is infinite there is none, and the sign tells."""
    if not all(map(math.isfinite, (*a, *b))):
        lost = sum(map(math.isinf, a)), sum(map(math.isinf, b))
        return (math.nan if all(lost) else math.inf if lost[0] else -math.inf), math.nan
    error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    return statistics.fmean(a) - statistics.fmean(b), error


def _side(difference: float, error: float) -> int:
    """−1 or 1 where a difference is told from 0, else 0."""
    if math.isinf(difference):
        return 1 if difference > 0 else -1
    return 0 if not abs(difference) > 2 * error else int(math.copysign(1, difference))


def _best_average(runs: Sequence[TrainedTransformer]) -> Finding:
    sqrt_vs = sorted({run.sqrt_v for run in runs})
    if not _enough(runs, ("random", "orthogonal", "goe"), sqrt_vs):
        return _too_small(BEST_AVERAGE, runs)
    found = {
        (other, v): _difference(_losses(runs, "goe", v), _losses(runs, other, v))
        for v in sqrt_vs
        for other in ("random", "orthogonal")
    }
    sides = [_side(*each) for each in found.values()]
    verdict: Verdict = "reproduced" if set(sides) == {-1} else "not reproduced" if 1 in sides else "inconclusive"
    said = ", ".join(f"{d:+.3f} ± {e:.3f} (√V = {v:g}, {other})" for (other, v), (d, e) in found.items())
    return BEST_AVERAGE.found(verdict, f"Mean loss of the GOE minus the other's: {said}.", sample=len(runs))


def _large_scale(runs: Sequence[TrainedTransformer]) -> Finding:
    top = max((run.sqrt_v for run in runs), default=math.nan)
    if not _enough(runs, ("random", "orthogonal"), (top,)):
        return _too_small(LARGE_SCALE, runs)
    difference, error = _difference(_losses(runs, "orthogonal", top), _losses(runs, "random", top))
    verdicts: dict[int, Verdict] = {-1: "reproduced", 0: "inconclusive", 1: "not reproduced"}
    said = f"Mean loss of orthogonal minus random at √V = {top:g}: {difference:+.3f} ± {error:.3f}."
    return LARGE_SCALE.found(verdicts[_side(difference, error)], said, difference, error, len(runs))


def _worst_best(claim: Claim, runs: Sequence[TrainedTransformer]) -> Finding:
    sqrt_vs = sorted({run.sqrt_v for run in runs})
    if not _enough(runs, ("random", "orthogonal", "goe"), sqrt_vs):
        return _too_small(claim, runs)
    best = {v: {f: min(_losses(runs, f, v)) for f in ("random", "orthogonal", "goe")} for v in sqrt_vs}
    gaps = {v: least["goe"] - max(least["random"], least["orthogonal"]) for v, least in best.items()}
    verdict: Verdict = "inconclusive"
    if all(gap > _TELLING for gap in gaps.values()):
        verdict = "reproduced"
    elif any(not gap > 0 for gap in gaps.values()):
        verdict = "not reproduced"
    said = ", ".join(f"{gap:+.3f} (√V = {v:g})" for v, gap in gaps.items())
    return claim.found(verdict, f"Least loss of the GOE minus the next worst: {said}.", sample=len(runs))


def _failures(runs: Sequence[TrainedTransformer]) -> Finding:
    sqrt_vs = sorted({run.sqrt_v for run in runs})
    if not _enough(runs, ("random", "goe"), sqrt_vs):
        return _too_small(FAILURES, runs)
    everyone = [loss for v in sqrt_vs for family in {run.family for run in runs} for loss in _losses(runs, family, v)]
    limit = statistics.median(everyone) + _FAILED
    goe = sum(not loss <= limit for v in sqrt_vs for loss in _losses(runs, "goe", v))
    random = [not loss <= limit for loss in _losses(runs, "random", sqrt_vs[-1])]
    share = statistics.fmean(random)
    verdict: Verdict = "inconclusive"
    if goe or not any(random):
        verdict = "not reproduced"
    elif share >= 0.2:
        verdict = "reproduced"
    said = f"{goe} trainings of the GOE failed, and {share:.0%} of the random at √V = {sqrt_vs[-1]:g}."
    return FAILURES.found(verdict, said, share, sample=len(runs))


def _broyden(runs: Sequence[TrainedTransformer]) -> Finding:
    if not runs or min(run.sequences for run in runs) < _SEQUENCES:
        return _too_small(BROYDEN, runs)
    worst = min(run.converged for run in runs)
    verdict: Verdict = "reproduced" if worst >= 0.95 else "not reproduced" if worst < 0.5 else "inconclusive"
    said = (
        f"Within the tolerance are {worst:.0%} to {max(run.converged for run in runs):.0%} of the test sequences, median "
        f"{statistics.median(run.converged for run in runs):.0%}; ‖f(z) − z‖/√d is "
        f"{statistics.median(run.residual for run in runs):.2g}; other second halves move the logits of the first by "
        f"{statistics.median(run.leak for run in runs):.2g} of their length, at most {max(run.leak for run in runs):.2g} (0 "
        "for a causal model). In the first tenth of the training "
        f"{min(run.converged_first for run in runs):.0%} to {max(run.converged_first for run in runs):.0%} of the "
        "sequences are."
    )
    return BROYDEN.found(verdict, said, worst, sample=sum(run.sequences for run in runs))


def _draw(rows: Sequence[dict[str, Any]]) -> "Figure":
    from matplotlib.figure import Figure

    settings = list(dict.fromkeys(row["setting"] for row in rows))
    figure = Figure(figsize=(4.5 * len(settings), 6), layout="constrained")
    panels = figure.subplots(2, len(settings), sharex=True, sharey="row", squeeze=False)
    for (above, below), setting in zip(panels.T, settings, strict=True):
        mine = [row for row in rows if row["setting"] == setting]
        for family, colour in zip(dict.fromkeys(row["family"] for row in mine), _COLOURS, strict=False):
            line = [row for row in mine if row["family"] == family]
            x = [row["sqrt_v"] for row in line]
            above.plot(x, [row["average"] for row in line], "o--", ms=4, color=colour, label=f"{family}, average")
            above.plot(x, [row["min"] for row in line], "o-", ms=4, color=colour, label=f"{family}, best")
            below.plot(x, [1 - row["converged"] for row in line], "o-", ms=4, color=colour, label=family)
        above.set(title=setting, xscale="log", yscale="log")
        below.set(xlabel="√V", ylim=(-0.05, 1.05))
    panels[0, 0].set_ylabel("test perplexity")
    panels[1, 0].set_ylabel("share without equilibrium")
    panels[0, 0].legend(fontsize="small")
    return figure

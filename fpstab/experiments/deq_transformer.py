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
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.experiments.claims import Study
from fpstab.experiments.deq_transformer_claims import (
    LEAST_SEQUENCES,
    TrainedTransformer,
    groups_of,
    transformer_findings,
)

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

_COLOURS = ("#4c72b0", "#55a868", "#c44e52", "#8172b3", "#ccb974", "#64b5cd")


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
        count = min(len(text.test_set), max(LEAST_SEQUENCES, batch_size))
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
    rows = tuple(_row(group) for group in groups_of(runs).values())
    values = {
        f"{row['setting']}/{row['family']}/{row['sqrt_v']:g}/{key}": float(row[key])
        for row in rows
        for key in ("min", "average", "converged", "residual", "leak")
    }
    return Study(rows, tuple(transformer_findings(runs)), lambda: _draw(rows), values)


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

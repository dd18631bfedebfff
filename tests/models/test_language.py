"""A language model is trained for a few steps, and what is logged is what it says."""

import math
from itertools import pairwise

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

from fpstab.callbacks import EquilibriumMonitor
from fpstab.equilibrium import Broyden
from fpstab.experiments.training import lightning_cli
from fpstab.models import DEQTransformer, LanguageTask
from fpstab.models.language import warmup_cosine
from fpstab.models.text import Sequences


def loader():
    tokens = torch.randint(0, 7, (200,), generator=torch.Generator().manual_seed(0))
    return DataLoader(Sequences(tokens, 5), 8)


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
def test_training_logs(tmp_path):
    net = DEQTransformer(vocabulary=7, length=5, width=8, heads=2, seed=0)
    task = LanguageTask(net, warmup=2, decay=4)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[EquilibriumMonitor(size=2, budget=None)],
    )
    trainer.fit(task, loader(), loader())
    logged = trainer.callback_metrics
    for stage in ("train", "val"):
        assert math.isfinite(logged[f"{stage}/loss"])
        assert 0 <= logged[f"{stage}/residual"] < 0.1
        assert logged[f"{stage}/converged"] == 1
    assert logged["fpstab/equilibrium/failed"] == 0
    assert trainer.lr_scheduler_configs[0].interval == "step"
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0  # after 10 steps of 2 + 4
    with torch.no_grad():
        pairs = [(net(x), y) for x, y in loader()]
    logits, targets = torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert float(logged["val/loss"]) == pytest.approx(float(loss), rel=1e-4)
    assert float(logged["val/perplexity"]) == pytest.approx(math.exp(float(loss)), rel=1e-4)


@pytest.mark.filterwarnings("ignore:FixedPointLayer")
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
def test_what_does_not_converge_is_logged(tmp_path):
    net = DEQTransformer(
        7, 5, 8, 2, embedding_std=0.02, solver=Broyden(max_iter=3), on_failure="warn", tol=1e-6, seed=0
    )
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    (found,) = trainer.test(LanguageTask(net), loader(), verbose=False)
    assert found["test/converged"] == 0
    assert found["test/residual"] > 1e-4


def test_a_network_without_equilibria():
    task = LanguageTask(nn.Embedding(7, 7))
    assert isinstance(task.configure_optimizers(), torch.optim.Adam)
    assert task._layers == []


def test_schedule():
    factors = [warmup_cosine(step, warmup=4, decay=10) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[9] == pytest.approx(0.5)
    assert all(a >= b for a, b in pairwise(factors[4:]))
    assert factors[14:] == [0.0] * 6
    assert warmup_cosine(10**9, warmup=0, decay=None) == 1


def test_bad_input():
    net = nn.Embedding(7, 7)
    with pytest.raises(ValueError, match="warmup must be"):
        LanguageTask(net, warmup=-1)
    with pytest.raises(ValueError, match="decay must be"):
        LanguageTask(net, decay=0)
    task = LanguageTask(nn.Flatten())
    with pytest.raises(ValueError, match="one that follows"):
        task.training_step((torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 2, dtype=torch.long)), 0)
    with pytest.raises(ValueError, match=r"returns logits \[B, T, vocabulary\]"):
        LanguageTask(nn.Linear(3, 3)).training_step((torch.zeros(2, 3), torch.zeros(2, 3)), 0)


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning", "ignore:FixedPointLayer")
@pytest.mark.parametrize(
    "more",
    [
        [],
        [
            "--model.net.family=goe",
            "--model.net.solver=fpstab.equilibrium.Broyden",
            "--model.net.solver.max_iter=20",
            "--model.net.on_failure=warn",
            "--model.net.embedding_std=0.02",
        ],
    ],
)
def test_configuration(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.accelerator=cpu", "--trainer.max_steps=2", "--trainer.enable_progress_bar=false"]
    options += [
        "--trainer.enable_model_summary=false",
        "--trainer.val_check_interval=2",
        "--trainer.limit_val_batches=1",
    ]
    with torch.random.fork_rng():
        cli = lightning_cli(["fit", "--config", "text_deq", *options, *more])
    assert cli.trainer.global_step == 2
    assert {"val/perplexity", "val/converged", "fpstab/equilibrium/rho_max"} <= cli.trainer.callback_metrics.keys()
    assert cli.trainer.callback_metrics["fpstab/equilibrium/failed"] == 0

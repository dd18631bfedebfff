"""Does training make the spectra of weights heavy?

Papers 1 §III and 2 §II say that it does, whatever the initialisation. Three networks are trained from a light-tailed initialisation, many seeds each, and every layer is judged after
every epoch: an MLP that classifies MNIST, the MNIST autoencoder, and the papers' toy, 2-100-100-2 with HardTanh,
which maps points around five places in the plane to those places. Run it with

    python -m fpstab.experiments.heavy_tails --seeds 10 --out runs/heavy_tails
"""

import argparse
import csv
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fpstab.esd.verdicts import LABELS
from fpstab.experiments.console import quiet_lightning

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.data import DataLoader

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]

_COLOURS = {
    "too_few": "#dddddd",
    "light": "#4c72b0",
    "light+spikes": "#64b5cd",
    "heavy": "#c44e52",
    "not_heavy": "#55a868",
    "undecided": "#ccb974",
}


@dataclass(frozen=True, slots=True)
class Observation:
    """The verdict on one layer of one network after one epoch, and the training loss of that epoch.

    Epoch −1 is the untrained network.
    """

    network: str
    seed: int
    epoch: int
    layer: str
    shape: str
    verdict: str
    cause: str | None
    alpha: float | None
    n_spikes: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the study.

    Attributes:
        make: Makes the network; the global generator is seeded.
        loss: Of the network, inputs and targets.
        batches: Makes the batches of an epoch from a seed.
        epochs: How long it is trained, with Adam at 0.001.
    """

    make: Callable[[], nn.Module]
    loss: Loss
    batches: Callable[[int], "DataLoader[Any]"]
    epochs: int


def networks() -> dict[str, Network]:
    """The networks of the study, by name.

    The papers' toy comes twice: with the printed initialisation, N(0, 1/√L) for all parameters, HardTanh is saturated
    from the start and nothing is learned; with weights N(0, 1/fan_in) it learns.
    """
    from fpstab.models import MLP, Autoencoder

    def classify(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(net(x), y)

    def restore(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(net(x), x)

    def map_to(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(net(x), y)

    return {
        "mnist_mlp": Network(lambda: MLP((784, 256, 128, 10)), classify, _mnist, 100),
        "mnist_autoencoder": Network(Autoencoder, restore, _mnist, 100),
        "toy": Network(_toy_network, map_to, toy_photos, 500),
        "toy_as_printed": Network(lambda: _toy_network(std=3**-0.5), map_to, toy_photos, 500),
    }


def run_study(
    names: Sequence[str] = ("mnist_mlp", "mnist_autoencoder", "toy", "toy_as_printed"),
    *,
    seeds: int = 10,
    first: int = 0,
    epochs: int | None = None,
    progress: bool = False,
) -> list[Observation]:
    """Train every network from every seed and judge every layer after every epoch.

    Args:
        names: Which of `networks()`.
        seeds: How many, for weights, batches and toy data.
        first: The first of them.
        epochs: Instead of each network's own number.
        progress: Whether to show a progress bar on stderr.

    Raises:
        ValueError: If a name is unknown.
    """
    known = networks()
    if unknown := set(names) - known.keys():
        raise ValueError(f"Unknown networks {sorted(unknown)}: expected some of {list(known)}.")
    from rich.console import Console
    from rich.progress import track

    runs = [(name, seed) for name in names for seed in range(first, first + seeds)]
    shown = track(runs, "training", console=Console(stderr=True), disable=not progress)
    return [row for name, seed in shown for row in _train(name, known[name], seed, epochs or known[name].epochs)]


def shares(observations: Sequence[Observation]) -> dict[tuple[str, str], dict[int, Counter[str]]]:
    """Count verdicts over the seeds: by (network, layer), then by epoch."""
    counts: dict[tuple[str, str], dict[int, Counter[str]]] = {}
    for row in observations:
        by_epoch = counts.setdefault((row.network, f"{row.layer} {row.shape}"), {})
        by_epoch.setdefault(row.epoch, Counter())[row.verdict] += 1
    return counts


def plot_study(observations: Sequence[Observation]) -> "Figure":
    """Draw, for each layer, the share of seeds with each verdict over the epochs."""
    from matplotlib.figure import Figure

    counts = shares(observations)
    columns = 4
    rows = -(-len(counts) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for ax in axes:
        ax.set_axis_off()
    for ((network, layer), by_epoch), ax in zip(counts.items(), figure.axes, strict=False):
        epochs = sorted(by_epoch)
        total = [sum(by_epoch[epoch].values()) for epoch in epochs]
        stacked = [[by_epoch[e][label] / t for e, t in zip(epochs, total, strict=True)] for label in LABELS]
        ax.set_axis_on()
        ax.stackplot(epochs, stacked, colors=[_COLOURS[label] for label in LABELS], step="mid")
        ax.set_title(f"{network}\n{layer}", fontsize="small")
        ax.set_ylim(0, 1)
        ax.set_xlim(epochs[0], epochs[-1])
        ax.set_xlabel("epoch", fontsize="small")
    from matplotlib.patches import Patch

    figure.legend(
        handles=[Patch(color=_COLOURS[label], label=label) for label in LABELS], loc="outside lower center", ncols=6
    )
    return figure


def table(observations: Sequence[Observation]) -> str:
    """A Markdown table: the verdicts on each layer before training, after the first epoch, halfway and at the end."""
    lines = [
        "| network | layer | at start | after 1 epoch | halfway | at the end | cause | median α | median loss |",
        "|" + "---|" * 9,
    ]
    for (network, layer), by_epoch in shares(observations).items():
        last = max(by_epoch)
        cells = [_counts(by_epoch[epoch]) for epoch in (-1, 0, last // 2, last)]
        ends = [r for r in observations if (r.network, f"{r.layer} {r.shape}", r.epoch) == (network, layer, last)]
        causes = Counter(r.cause or "–" for r in ends if r.verdict == "heavy")
        starts = [r for r in observations if (r.network, f"{r.layer} {r.shape}", r.epoch) == (network, layer, -1)]
        alpha = f"{_median([r.alpha for r in starts], 2)} → {_median([r.alpha for r in ends], 2)}"
        firsts = [r for r in observations if (r.network, f"{r.layer} {r.shape}", r.epoch) == (network, layer, 0)]
        loss = f"{_median([r.loss for r in firsts], 4)} → {_median([r.loss for r in ends], 4)}"
        lines.append(f"| {network} | {layer} | {' | '.join(cells)} | {_counts(causes) or '–'} | {alpha} | {loss} |")
    return "\n".join(lines)


def toy_photos(seed: int, people: int = 5, photos: int = 50, radius: float = 0.15) -> "DataLoader[Any]":
    """The papers' toy data: points around `people` places in [−1, 1]², each to be mapped to its place (paper 2 §IV)."""
    from torch.utils.data import DataLoader, TensorDataset

    generator = torch.Generator().manual_seed(seed)
    angles = 2 * torch.pi * (torch.arange(people) / people + torch.rand(1, generator=generator))
    places = 0.6 * torch.stack([angles.cos(), angles.sin()], dim=1)
    turn = 2 * torch.pi * torch.rand(people, photos, generator=generator)
    distance = radius * torch.rand(people, photos, generator=generator).sqrt()
    around = distance.unsqueeze(-1) * torch.stack([turn.cos(), turn.sin()], dim=-1)
    points = (places.unsqueeze(1) + around).flatten(0, 1)
    return DataLoader(
        TensorDataset(points, places.repeat_interleave(photos, dim=0)), 25, shuffle=True, generator=generator
    )


def _toy_network(std: float | None = None) -> nn.Module:
    """2-100-100-2, HardTanh after every layer, all parameters N(0, std²); by default weights N(0, 1/fan_in)."""
    net = nn.Sequential(
        nn.Linear(2, 100), nn.Hardtanh(), nn.Linear(100, 100), nn.Hardtanh(), nn.Linear(100, 2), nn.Hardtanh()
    )
    for parameter in net.parameters():
        fan_in = parameter.shape[-1] if parameter.ndim > 1 else 100
        nn.init.normal_(parameter, std=fan_in**-0.5 if std is None else std)
    return net


def _mnist(seed: int) -> "DataLoader[Any]":
    from fpstab.models import MNISTData

    data = MNISTData()
    data.prepare_data()
    data.setup("fit")
    loader: DataLoader[Any] = data.train_dataloader()
    return loader


def _train(name: str, network: Network, seed: int, epochs: int) -> list[Observation]:
    from pytorch_lightning import LightningModule, Trainer

    from fpstab.callbacks import ESDMonitor, read_lines

    class Task(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network.make()
            self.losses: list[list[float]] = []  # by epoch, by batch

        def on_train_epoch_start(self) -> None:
            self.losses.append([])

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            loss = network.loss(self.net, *batch)
            self.losses[-1].append(float(loss.detach()))
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[ESDMonitor(budget=None, histogram=False, strict=True)],
        )
        task = Task()
        trainer.fit(task, network.batches(seed))
        lines = read_lines(Path(folder) / "fpstab.jsonl")
    return [
        Observation(
            name,
            seed,
            -1 if line["phase"] == "baseline" else line["epoch"],
            layer["name"].removeprefix("net."),
            "×".join(map(str, layer["shape"])),
            layer["verdict"]["label"],
            layer["verdict"]["cause"],
            layer["metrics"]["alpha"],
            int(layer["metrics"]["num_spikes"] or 0),
            None if line["phase"] == "baseline" else float(np.mean(task.losses[line["epoch"]])),
        )
        for line in lines
        for layer in line["result"]["layers"]
    ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {label}" for label, count in counter.most_common())


def _median(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{np.median(known):.{digits}f}" if known else "–"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the study from the command line: a CSV of all observations, the table, the picture."""
    parser = argparse.ArgumentParser(description="Does training make the spectra of weights heavy?")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, help="instead of 100 on MNIST and 500 on the toy")
    parser.add_argument("--networks", nargs="+", default=list(networks()), choices=list(networks()))
    parser.add_argument("--out", type=Path, default=Path("runs/heavy_tails"))
    arguments = parser.parse_args(argv)
    quiet_lightning()
    torch.set_num_threads(1)
    observations = run_study(arguments.networks, seeds=arguments.seeds, epochs=arguments.epochs, progress=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    partial = arguments.out / "observations.csv.part"
    with open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, list(Observation.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(row) for row in observations)
    os.replace(partial, arguments.out / "observations.csv")
    (arguments.out / "table.md").write_text(table(observations) + "\n")
    plot_study(observations).savefig(arguments.out / "verdicts.png", dpi=100)
    print(table(observations))


if __name__ == "__main__":
    main()

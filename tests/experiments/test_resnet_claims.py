"""What runs of paper 5's tables make of its claims, on made-up runs."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from fpstab.experiments.resnet_claims import resnet_findings
from fpstab.experiments.resnet_tables import ResNetTable
from fpstab.orbits import Orbits, orbit_report

LIKE_THE_PAPER = {"epochs": 100, "train_images": 60_000}


@dataclass
class Run:
    images: str = "mnist"
    depth: int = 18
    n: int = 10_000
    settings: dict[str, Any] = field(default_factory=lambda: dict(LIKE_THE_PAPER))
    training: str = "100 epochs"
    class_names: tuple[str, ...] = tuple(map(str, range(10)))
    outputs: Any = None

    def report(self):
        return orbit_report(Orbits(self.outputs, torch.arange(len(self.outputs)) % 10), "paper", throw=False)


def outputs(seed=0, n=200):
    return torch.rand(n, 9, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(2)


def table(name, run, *rows):
    return ResNetTable(name, (run,), rows, (), Figure, {})


def performance(run, f1):
    ours = {"source": "ours", "images": run.images, "depth": run.depth, "f1": f1, "loss": 0.04, "accuracy": f1}
    paper = ours | {"source": "paper", "f1": 0.9891, "loss": 0.0363}
    return resnet_findings(table("table 1", run, ours, paper))[0]


def test_performance():
    assert performance(Run(), 0.988).verdict == "reproduced"
    assert performance(Run(), 0.95).verdict == "not reproduced"
    assert performance(Run(settings={"epochs": 5, "train_images": 3600}), 0.988).verdict == "inconclusive"
    assert performance(Run(n=1000), 0.988).verdict == "inconclusive"
    assert performance(Run(settings={"checkpoint": "x"}), 0.988).verdict == "inconclusive"


def test_images_that_the_paper_does_not_have():
    run = Run(images="photographs")
    ours = {"source": "ours", "images": "photographs", "depth": 18}
    assert [f.verdict for f in resnet_findings(table("table 1", run, ours))] == ["inconclusive"]
    assert {f.verdict for f in resnet_findings(table("table 2", run, ours))} == {"inconclusive"}


def constants(run, lipsdp=3.38, printed=4.14e-5):
    both = {"images": run.images, "depth": run.depth}
    ours = both | {"source": "ours", "g_shadowing": 2.3, "lipschitz_logits": 3.38, "lipschitz_lipsdp": lipsdp}
    paper = both | {"source": "paper", "g_expansive": printed, "g_shadowing": 2.3583, "lipschitz_logits": 3.38}
    return {f.claim.item: f.verdict for f in resnet_findings(table("table 2", run, ours, paper))}


def test_constants():
    run = Run(outputs=outputs())
    found = run.report().expansivity
    verdicts = constants(run, printed=found.block.value)
    assert verdicts["Table 2, g-expansive, value"] == "reproduced"
    assert verdicts["Table 2, g-shadowing, value"] == "reproduced"
    assert verdicts["Table 2, Lip(g), method"] == "reproduced"
    assert verdicts["Table 2, Lip(g), value"] == "reproduced"
    verdicts = constants(run, lipsdp=3.5, printed=found.definition.value)
    assert verdicts["Table 2, Lip(g), method"] == "not reproduced"
    assert verdicts["Table 2, g-expansive, what it is"] == "reproduced"


def test_a_minimum_in_the_place_of_a_maximum():
    values = outputs(n=500)
    values[1, 3] = values[0, 3] + 1e-7  # a pair of two classes that meets at one state
    run = Run(outputs=values)
    assert constants(run)["Table 2, g-expansive, what it is"] == "corrected"


@pytest.mark.parametrize(("name", "depth", "images"), [("table 4", 18, "mnist"), ("table 5", 50, "mnist")])
def test_chains(name, depth, images):
    within = torch.eye(10, dtype=torch.float64)[torch.arange(200) % 10]
    jitter = torch.rand(200, 9, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 1000
    run = Run(images, depth, outputs=within[:, None] + jitter)
    (found,) = resnet_findings(table(name, run))
    assert found.value == 10  # all keep to their class
    assert found.verdict == ("not reproduced" if depth == 18 else "reproduced")
    (other,) = resnet_findings(table(name, Run("cifar10", depth, outputs=run.outputs)))
    assert other.verdict == "inconclusive"


def test_figures_and_closest():
    run = Run("mnist", 50, outputs=outputs())
    for name in ("table 3", "figure 2", "figure 3"):
        (found,) = resnet_findings(table(name, run))
        assert found.said.startswith("MNIST, ResNet-50, N = 10,000, 100 epochs: ")
    assert resnet_findings(table("figure 3", Run("mnist", 18, outputs=run.outputs)))[0].verdict == "inconclusive"


def test_another_table_is_refused():
    with pytest.raises(ValueError, match="there are no claims of 'table 9'"):
        resnet_findings(SimpleNamespace(name="table 9", runs=()))

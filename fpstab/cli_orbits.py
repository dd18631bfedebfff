"""The command `fpstab orbits`: g-expansive and g-shadowing constants of a trained network on its own images."""

import argparse
import csv
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.cli_arguments import add_checkpoint, whole
from fpstab.experiments.opening import RefusedError, build, config_of, load_weights, model_part

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn
    from torch.utils.data import Dataset

    from fpstab.orbits import OrbitReport

_DESCRIPTION = """\
Follows images through the blocks of the network in a checkpoint, and measures
how near those of different classes come (g-expansive, three constants), how
well images trace pseudo-orbits (g-shadowing), the Lipschitz constant of the head
g, and Sh/Lip(g), an estimate of topological g-stability (paper 5). All are
numbers of a sample: the expansive ones fall as it grows."""

_EPILOG = """\
Network and images are made from --config: what `fpstab train` was given, or the
config.yaml that a run of LightningCLI leaves beside its checkpoints (found by
itself there). Nothing in the checkpoint is run; it is read as tensors. The
configuration is: it names classes, so use your own.

examples:
  fpstab orbits runs/mnist_resnet18_quick/version_0/checkpoints/last.ckpt
  fpstab orbits last.ckpt --config mnist_resnet18 --n-images 10000 --out orbits
  fpstab orbits last.ckpt --config my.yaml --blocks 'layer*.*' --head probes

exit codes:
  0  all constants were measured
  1  one of them cannot be had (it is said why)
  2  a file could not be read, the blocks make no orbit, or wrong usage"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `fpstab`."""
    parser = commands.add_parser(
        "orbits",
        help="measure g-expansive and g-shadowing constants of the network in a checkpoint",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_checkpoint(parser, "model and data")
    parser.add_argument("--map", default="net", metavar="PATH", help="the network within the LightningModule "
                        "(default: net)")  # fmt: skip
    parser.add_argument("--blocks", action="append", metavar="PATTERN", help="names of its blocks, * for one part of a "
                        "name; repeatable (default: blocks.*)")  # fmt: skip
    parser.add_argument("--images", choices=("test", "val", "train"), default="test", help="which images of the data "
                        "(default: test)")  # fmt: skip
    parser.add_argument("--n-images", type=whole(2, "an integer from 2 on"), default=1000, metavar="N",
                        help="how many at most, evenly spread (default: 1000)")  # fmt: skip
    parser.add_argument("--preset", choices=("paper", "definition"), default="paper", help="paper: least minimum, "
                        "autonomous chains, best traced; definition: least maximum, chains by depth, the curve")  # fmt: skip
    parser.add_argument("--head", choices=("final", "probes"), default="final", help="the network's own head at every "
                        "state (default), or a linear one fitted to each")  # fmt: skip
    parser.add_argument("--same-class", action="store_true", help="chains and tracers keep to one class")
    parser.add_argument("--lip", choices=("exact", "cvxpy"), default="exact", help="Lip(g) in closed form or certified "
                        "(default), or by LipSDP through cvxpy")  # fmt: skip
    parser.add_argument("--lip-head", metavar="PATH", help="the head g within the network (default: its last child with "
                        "parameters)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write CSV, JSON and pictures there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run_orbits(arguments: argparse.Namespace) -> int:
    """Open the network and its images, measure, print, and write what was asked for.

    Args:
        arguments: What the parser of `add_parser` gave.

    Returns:
        The exit code: 0; 1 if a constant cannot be had; 2 if something could not be read or makes no orbit; 130 if
        interrupted.
    """
    try:
        return _run(arguments)
    except (RefusedError, OSError, ModuleNotFoundError) as error:
        print(f"fpstab orbits: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fpstab orbits: interrupted.", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    from fpstab.experiments.console import quiet_lightning
    from fpstab.results import AnalysisError

    quiet_lightning()
    path = config_of(arguments.checkpoint, arguments.config)
    model, data = build(path)
    load_weights(model, arguments.checkpoint)
    if data is None:
        raise RefusedError(f"{path} has no section 'data', so there are no images.")
    images = _images(data, arguments.images, arguments.n_images)
    network = model_part(model, arguments.map)
    try:
        report = _measure(network, images, arguments)
    except (AnalysisError, ValueError, TypeError) as error:
        raise RefusedError(str(error)) from error
    record = _record(report, arguments, path)
    if arguments.json:
        print(json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False))
    else:
        _show(report, f"{arguments.checkpoint}  {arguments.map}".rstrip(), arguments.lip)
    if arguments.out is not None:
        written = _write(arguments.out, report, images, getattr(data, "class_names", None), record)
        if not arguments.json:
            print("\n".join(str(each) for each in written))
    return 0 if report.status.ok else 1


def _images(data: Any, part: str, count: int) -> "Dataset[Any]":
    """Images evenly spread over a data set of the LightningDataModule."""
    import torch
    from torch.utils.data import Subset

    stage = "test" if part == "test" else "fit"
    try:
        data.prepare_data()
        data.setup(stage)
        loader = getattr(data, f"{part}_dataloader")()
    except (ValueError, RuntimeError, AttributeError) as error:
        raise RefusedError(f"the {part} images cannot be had: {error}") from error
    loader = loader[0] if isinstance(loader, list | tuple) and loader else loader
    dataset: Any = getattr(loader, "dataset", None)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or not len(dataset):
        raise RefusedError(f"the {part} images cannot be read by index: {type(dataset).__name__}.")
    size = len(dataset)
    chosen = torch.linspace(0, size - 1, min(size, count), dtype=torch.float64).round().long().tolist()
    return Subset(dataset, chosen)


def _measure(network: "nn.Module", images: "Dataset[Any]", arguments: argparse.Namespace) -> "OrbitReport":
    from fpstab.lipschitz import head_lipschitz
    from fpstab.orbits import PRESETS, fit_probes, head_constants, head_of, observe, orbit_report

    blocks = arguments.blocks or "blocks.*"
    head: Any = "final"
    if arguments.head == "probes":
        head = fit_probes(network, images, blocks=blocks)
        # one g for each state: the largest constant holds for all
        lipschitz: dict[str, Any] = {
            of: max(head_lipschitz(probe.weight, softmax=of == "probabilities").value for probe in head)
            for of in ("logits", "probabilities")
        }
    else:
        lipschitz = head_constants(head_of(network, arguments.lip_head), arguments.lip)
    orbits = observe(network, images, blocks=blocks, head=head, space=PRESETS[arguments.preset].space)
    preset, same_class = arguments.preset, arguments.same_class
    return orbit_report(orbits, preset, lipschitz=lipschitz, same_class=same_class, throw=False)


def _rows(report: "OrbitReport", lip: str) -> list[tuple[str, float, str]]:
    """Quantity, value, and what it is."""
    found, shadow = report.expansivity, report.shadowing
    what = {"definition": "largest (Definition 1)", "block": "least (the paper's Table 2)", "mean": "mean (Figure 2)"}
    rows = []
    for constant in (found.definition, found.block, found.mean):
        pair = "" if constant.pair is None else f"; images {constant.pair[0]} and {constant.pair[1]}"
        block = "" if constant.block is None else f", block {constant.block}"
        rows.append(
            (
                f"expansive_{constant.kind}",
                constant.value,
                f"least over the pairs of the {what[constant.kind]}{pair}{block}",
            )
        )
    chains = "chains within a class" if shadow.same_class else "chains"
    rows.append(("shadowing", shadow.value, f"Sh = δ/ε; {shadow.chain_mode} {chains}, {shadow.rule}"))
    rows += [
        ("delta", shadow.delta, "largest step of the chain"),
        ("epsilon", shadow.epsilon, "how near its tracer stays"),
    ]
    for each in report.stability:
        of = each.lipschitz_of
        how = "largest of the probes" if found.head == "probes" else lip
        rows.append((f"lipschitz_{of}", each.lipschitz, f"Lip(g), g the map to the {of} ({how})"))
        rows.append((f"stability_{of}", each.value, "Sh/Lip(g): an estimate of topological g-stability, no bound"))
    return rows


def _show(report: "OrbitReport", title: str, lip: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.width = max(console.width, 80)
    found = report.expansivity
    console.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
    console.print(f"N = {found.n}, space {found.space}, head {found.head}, preset {report.preset}")
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("quantity", "value", "what it is"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for name, value, meaning in _rows(report, lip):
        table.add_row(name, f"{value:.6g}", escape(meaning))
    console.print(table)
    if report.status.message:
        console.print(escape(str(report.status)), soft_wrap=True)


def _record(report: "OrbitReport", arguments: argparse.Namespace, config: Path) -> dict[str, Any]:
    from fpstab import __version__

    found, shadow = report.expansivity, report.shadowing
    record = {
        "checkpoint": str(arguments.checkpoint),
        "config": str(config),
        "fpstab": __version__,
        "map": arguments.map,
        "blocks": arguments.blocks or ["blocks.*"],
        "images": arguments.images,
        "N": found.n,
        "space": found.space,
        "head": found.head,
        "preset": report.preset,
        "chain_mode": shadow.chain_mode,
        "rule": shadow.rule,
        "same_class": shadow.same_class,
        "lip": arguments.lip,
        "scalars": report.scalars(),
        "constants": found.table(),
        "shadowing": shadow.table(),
        "status": {"code": report.status.code, "message": report.status.message},
    }
    plain: dict[str, Any] = _plain(record)
    return plain


def _plain(value: Any) -> Any:
    """What JSON can hold: null for nan and infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(
    folder: Path, report: "OrbitReport", images: "Dataset[Any]", names: Any, record: dict[str, Any]
) -> list[Path]:
    """JSON, a CSV for each table, and the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    found, shadow = report.expansivity, report.shadowing
    written = [folder / "orbits.json"]
    written[0].write_text(json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")
    tables = {"orbits": report.table(), "shadowing": shadow.table()}
    tables |= {f"expansive_{each.kind}": each.table() for each in (found.definition, found.block, found.mean)}
    for name, rows in tables.items():
        if rows:
            written.append(folder / f"{name}.csv")
            with written[-1].open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    for name, figure in _figures(report, images, names).items():
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], dpi=110)
    return written


def _figures(report: "OrbitReport", images: "Dataset[Any]", names: Any) -> "dict[str, Figure]":
    from fpstab.orbits import plot_chains, plot_dots, plot_matrix, plot_pairs, plot_shadowing

    found, shadow = report.expansivity, report.shadowing
    figures: dict[str, Any] = {}
    for constant in (found.definition, found.block, found.mean):
        figures[f"matrix_{constant.kind}"] = plot_matrix(constant, names=names).figure
        figures[f"dots_{constant.kind}"] = plot_dots(constant, names=names).figure
    if _are_images(images):
        figures["pairs"] = plot_pairs(found.block.pairs, images, names=names)
        if shadow.chain:
            figures["chains"] = plot_chains(shadow, images, shadow.classes()[:10], names)
    if shadow.chain:
        figures["tracing"] = plot_shadowing(shadow).figure
    return figures


def _are_images(images: "Dataset[Any]") -> bool:
    """Whether inputs can be drawn: `[C, H, W]`, `[H, W]` or `[n]`."""
    return getattr(images[0][0], "ndim", 0) in (1, 2, 3)

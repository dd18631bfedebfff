"""The command `fpstab reproduce`: a figure or table of a paper, anew, with what does and does not come out."""

import argparse
import csv
import json
import math
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fpstab.experiments.opening import RefusedError


@dataclass(frozen=True)
class Entry:
    """A figure or table that can be reproduced.

    The function takes `seed` and its sizes by keyword, and returns a result with `scalars()`, `table()` and `plot()`; a
    property `verdict` says what reproduces, and `records()` gives the rows behind those of the table, if it has them.
    Its module's `FULL` maps the function's name to the paper's sizes.

    Attributes:
        module: Where the function is.
        function: Its name.
        text: What it shows, for the list.
        options: Of the command's, e.g. `data` and `jobs`, those that the function takes.
    """

    module: str
    function: str
    text: str
    options: tuple[str, ...] = ()


_THEORY, _TRAINING = "fpstab.experiments.deq_theory", "fpstab.experiments.deq_training"
_RESNET = "fpstab.experiments.resnet_paper"
_RESNET_OPTIONS = ("data", "depth", "images", "checkpoint", "out")

ENTRIES = {
    "deq-fig1": Entry(_THEORY, "length_variance", "linear DEQ: length variance near the transition (paper 4)"),
    "deq-fig2": Entry(_THEORY, "field_variance", "nonlinear DEQ: σ_h² against √V (paper 4)"),
    "deq-fig3": Entry(_THEORY, "largest_eigenvalue", "nonlinear DEQ: largest eigenvalue against √V (paper 4)"),
    "deq-fig4": Entry(_THEORY, "residual", "nonlinear DEQ: residual after long iteration (paper 4)"),
    "deq-fig5": Entry(_TRAINING, "error_by_scale", "DEQs trained on MNIST: test error against √V (paper 4)",
                      ("data", "jobs")),
    "resnet-table1": Entry(_RESNET, "performance", "revised ResNets: precision, recall, F1, loss (paper 5)",
                           _RESNET_OPTIONS),
    "resnet-table2": Entry(_RESNET, "constants", "revised ResNets: g-expansive, g-shadowing, Lip(g) (paper 5)",
                           _RESNET_OPTIONS),
    "resnet-table3": Entry(_RESNET, "closest", "revised ResNets: closest images of two classes (paper 5)",
                           _RESNET_OPTIONS),
    "resnet-table4": Entry(_RESNET, "traced_18", "revised ResNet-18: best-traced chains of images (paper 5)",
                           _RESNET_OPTIONS),
    "resnet-table5": Entry(_RESNET, "traced_50", "revised ResNet-50: best-traced chains of images (paper 5)",
                           _RESNET_OPTIONS),
    "resnet-fig2": Entry(_RESNET, "mean_distances", "revised ResNets: least mean distances by class (paper 5)",
                         _RESNET_OPTIONS),
    "resnet-fig3": Entry(_RESNET, "block_distances", "revised ResNets: least distances at a block (paper 5)",
                         _RESNET_OPTIONS),
}  # fmt: skip
"""What `fpstab reproduce` takes. A further paper adds its lines here."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `fpstab`."""
    parser = commands.add_parser(
        "reproduce",
        help="make a figure of a paper anew, and say what reproduces",
        description="Makes a figure of a paper anew: the picture, its points as CSV, and settings, seed, time and "
        "findings as JSON. Small by default (seconds to a minute on one core); --full takes the paper's sizes.",
        epilog="figures:\n" + "\n".join(f"  {name:13} {entry.text}" for name, entry in ENTRIES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("name", nargs="?", choices=list(ENTRIES), metavar="NAME", help="a figure; see below")
    choice.add_argument("--list", action="store_true", help="list the figures and exit")
    parser.add_argument("--full", action="store_true", help="the paper's sizes: minutes to hours")
    parser.add_argument("--seed", type=_whole(0, "an integer from 0 on"), default=0, help="the first seed (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/reproduce"), help="folder for the files (default: runs/reproduce)"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder that may hold MNIST/raw (default: data)"
    )
    parser.add_argument("--jobs", type=_whole(1, "a positive integer"), help="trainings at once (default: 1)")
    networks = parser.add_argument_group("revised ResNets")
    networks.add_argument("--depth", type=int, choices=(18, 50), help="only this one (default: 18, of table 5 and with "
                          "--full 50 too)")  # fmt: skip
    networks.add_argument("--images", choices=("mnist", "cifar10", "photographs"), help="only these (default: MNIST or "
                          "its sample, and CIFAR-10 if its files are in --data)")  # fmt: skip
    networks.add_argument("--checkpoint", type=Path, help="measure this trained network; otherwise one is trained, and "
                          "kept in the folder networks of --out")  # fmt: skip


def run_reproduce(arguments: argparse.Namespace) -> int:
    """Make a figure; print what reproduces; write picture, CSV and JSON.

    Args:
        arguments: What the parser of `add_parser` gave.

    Returns:
        The exit code: 0; 2 if the output cannot be written, there are no images, or a checkpoint does not fit.
    """
    if arguments.list:
        for name, entry in ENTRIES.items():
            print(f"{name:13} {entry.text}")
        return 0
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        _run(arguments)
    except (OSError, ModuleNotFoundError, RefusedError) as error:
        print(f"fpstab reproduce: {error}", file=sys.stderr)
        return 2
    return 0


def _run(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    entry = ENTRIES[arguments.name]
    with console.status(f"{arguments.name}: {entry.text}…"):
        import torch

        torch.set_num_threads(1)  # enough for matrices this small; more runs at once is better: --jobs
        module = import_module(entry.module)
        settings: dict[str, Any] = dict(module.FULL[entry.function]) if arguments.full else {}
        settings["seed"] = arguments.seed
        settings |= {name: getattr(arguments, name) for name in entry.options}
        start = time.perf_counter()
        result = getattr(module, entry.function)(**settings)
        seconds = time.perf_counter() - start
    verdict = _verdict(result)
    stem = arguments.out / f"{arguments.name}-{arguments.seed}{'-full' if arguments.full else ''}"
    picture, points, figures = (stem.with_name(stem.name + end) for end in (".png", ".csv", ".json"))
    _figure(result).savefig(picture, dpi=110)
    _write_csv(points, result.table())
    record = {
        "figure": arguments.name,
        "what": entry.text,
        "function": f"{entry.module}.{entry.function}",
        "fpstab": _version(),
        "torch": torch.__version__,
        "full": arguments.full,
        "settings": _settings(module, entry, settings),
        "seed": arguments.seed,
        "seconds": seconds,
        "verdict": verdict,
        "scalars": result.scalars(),
        "table": result.table(),
    }
    if hasattr(result, "records"):
        record["records"] = result.records()
    figures.write_text(json.dumps(_plain(record), allow_nan=False, indent=1, ensure_ascii=False) + "\n")
    console.print(verdict, markup=False)
    console.print(
        f"{seconds:.0f} s; picture: {picture}\npoints: {points}\nfigures: {figures}", markup=False, soft_wrap=True
    )


def _verdict(result: Any) -> str:
    """The result's own, or the largest deviation of the measured points from each curve."""
    if hasattr(result, "verdict"):
        return str(result.verdict)
    deviations = result.scalars()
    if not deviations:
        return "The measured points stand beside the thresholds of the theory: see the picture."
    said = ", ".join(
        f"{name} {value:.0%}" if value < 10 else f"{name} more than tenfold" for name, value in deviations.items()
    )
    return f"Largest deviation of a measured median from the theory (corrected, as printed): {said}."


def _figure(result: Any) -> Any:
    drawn = result.plot()
    return drawn if hasattr(drawn, "savefig") else drawn.figure


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _settings(module: Any, entry: Entry, given: dict[str, Any]) -> dict[str, Any]:
    """All that the function was called with, its defaults too."""
    import inspect

    parameters = inspect.signature(getattr(module, entry.function)).parameters
    return {name: given.get(name, parameter.default) for name, parameter in parameters.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _version() -> str:
    from fpstab import __version__

    return __version__


def _whole(least: int, expected: str) -> Any:
    def parse(text: str) -> int:
        value = int(text) if text.isdecimal() else -1
        if not least <= value < 2**32:
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse

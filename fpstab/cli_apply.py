"""The command `fpstab apply`: train an application of papers 1 and 2, and see whether its idea holds."""

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from fpstab.cli_arguments import add_folders, whole

if TYPE_CHECKING:
    from fpstab.experiments.applications import Application

NAMES = {
    "toy": "circles in the plane are mapped to their centres (paper 2, §IV)",
    "memories": "autoencoders on few images and on all: which images are attractors (paper 2, §I)",
    "identification": "one stored image a class, found by encoding and decoding (paper 1, §II.2)",
    "restoration": "damaged images are restored by iterating to the fixed point (paper 1, §II.1)",
    "semi-supervised": "classes by basins of attraction, some of them unknown (paper 1, §II.4)",
    "unsupervised": "loss (6), a denoising autoencoder, and k-means (paper 1, §II.3)",
}
"""What `fpstab apply` takes."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `fpstab`."""
    parser = commands.add_parser(
        "apply",
        help="train an application of fixed points on real images, and judge it",
        description="Trains an application of papers 1 and 2, compares it with plain baselines, and says whether the "
        "paper's idea holds. Half a minute to some minutes each, on one core.",
        epilog="applications:\n" + "\n".join(f"  {name:16} {text}" for name, text in NAMES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("name", nargs="?", choices=list(NAMES), metavar="NAME", help="an application; see below")
    choice.add_argument("--list", action="store_true", help="list the applications and exit")
    parser.add_argument("--seed", type=whole(0, "an integer from 0 to 2**32 - 1", 2**32), default=0, help="of networks, "
                        "data and batches (default: 0)")  # fmt: skip
    parser.add_argument("--epochs", type=whole(1, "a positive integer"), help="of training, instead of the "
                        "application's own number")  # fmt: skip
    add_folders(parser, "runs/apply", "picture and JSON")


def run_apply(arguments: argparse.Namespace) -> int:
    """Run an application; print its table and verdict; write its picture and figures.

    Args:
        arguments: What the parser of `add_parser` gave.

    Returns:
        The exit code: 0; 2 if the output cannot be written or there are no images.
    """
    if arguments.list:
        for name, text in NAMES.items():
            print(f"{name:16} {text}")
        return 0
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        _run(arguments)
    except (OSError, ModuleNotFoundError) as error:
        print(f"fpstab apply: {error}", file=sys.stderr)
        return 2
    return 0


def _run(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    with console.status(f"Training: {NAMES[arguments.name]}…"):
        import torch

        from fpstab.experiments.applications import APPLICATIONS, BATCH_SIZES
        from fpstab.experiments.console import quiet_lightning
        from fpstab.models import MNISTData

        torch.set_num_threads(1)  # enough for networks this small
        quiet_lightning()
        options: dict[str, Any] = {} if arguments.epochs is None else {"epochs": arguments.epochs}
        if arguments.name in BATCH_SIZES:
            options["images"] = MNISTData(arguments.data, batch_size=BATCH_SIZES[arguments.name])
        result = APPLICATIONS[arguments.name](arguments.seed, **options)
    console.width = max(console.width, 80)
    console.print(_table(result.table()))
    console.print(result.verdict)
    stem = arguments.out / f"{arguments.name}-{arguments.seed}"
    picture, figures = stem.with_suffix(".png"), stem.with_suffix(".json")
    result.plot().savefig(picture, dpi=110)
    figures.write_text(_json(arguments.name, result))
    console.print(f"picture: {picture}\nfigures: {figures}", markup=False, soft_wrap=True)


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for name in rows[0]:
        table.add_column(escape(name), justify="right" if isinstance(rows[0][name], float) else "left")
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _json(name: str, result: "Application") -> str:
    from fpstab import __version__

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    record = {
        "application": name,
        "fpstab": __version__,
        "seed": result.seed,
        "holds": result.holds,
        "verdict": result.verdict,
        "scalars": {key: finite(value) for key, value in result.scalars().items()},
        "table": [{key: finite(value) for key, value in row.items()} for row in result.table()],
    }
    return json.dumps(record, allow_nan=False, indent=1, ensure_ascii=False) + "\n"

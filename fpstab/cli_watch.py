"""The command `fpstab watch`: a run as it goes, on a terminal."""

import argparse
import sys
import time
from pathlib import Path

_EPILOG = """\
examples:
  fpstab watch lightning_logs/version_3
  fpstab watch runs                        the newest run below, also one that starts later
  fpstab watch runs --once                 print once and exit

Ctrl-C ends it; the training does not notice."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `fpstab`."""
    parser = commands.add_parser(
        "watch",
        help="show on the terminal what the monitors of a run measure, while it goes on",
        description="Shows the scalars of a run's monitors with their course, read from fpstab.jsonl again and again: "
        "for machines without a browser.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the log folder of a run, or one above it")
    parser.add_argument("--every", type=_seconds, default=2.0, metavar="SECONDS", help="how often to look (default: 2)")
    parser.add_argument("--all", action="store_true", help="all quantities, those of each layer too")
    parser.add_argument("--once", action="store_true", help="print once and exit")


def run_watch(arguments: argparse.Namespace) -> int:
    """Show a run until Ctrl-C.

    Args:
        arguments: What the parser of `add_parser` gave.

    Returns:
        The exit code: 0; 2 if there is no such folder, or with `--once` nothing to show.
    """
    from rich.console import Console
    from rich.live import Live

    from fpstab.experiments.opening import RefusedError
    from fpstab.report.live import view_of
    from fpstab.report.runs import open_run

    console = Console()
    if not arguments.run.exists():
        print(f"fpstab watch: {arguments.run}: there is no such folder.", file=sys.stderr)
        return 2
    if arguments.once:
        try:
            console.print(view_of(open_run(arguments.run, logs=False), everything=arguments.all))
        except RefusedError as error:
            print(f"fpstab watch: {error}", file=sys.stderr)
            return 2
        return 0
    try:
        with Live(console=console, auto_refresh=False, screen=False, vertical_overflow="visible") as live:
            while True:
                try:
                    live.update(view_of(open_run(arguments.run, logs=False), everything=arguments.all), refresh=True)
                except RefusedError as error:
                    live.update(f"Waiting: {error}", refresh=True)
                time.sleep(arguments.every)
    except KeyboardInterrupt:
        return 0


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds from 0.1 on, got {text!r}")
    return value

"""The command `fpstab reproduce`: figures, tables and theorems of the papers anew, with verdicts by rule."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpstab.cli_arguments import add_folders, whole
from fpstab.experiments.opening import RefusedError
from fpstab.experiments.register.entries import ENTRIES, PAPERS, Entry

if TYPE_CHECKING:
    from rich.console import Console

    from fpstab.experiments.register.items import Record, Task

_OPTIONS = ("data", "jobs", "depth", "images", "checkpoint", "out")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `fpstab`."""
    parser = commands.add_parser(
        "reproduce",
        help="make figures, tables and theorems of the papers anew, and say what reproduces",
        description="Makes an item of a paper anew: the picture, its points as CSV, and settings, seed, time and findings as "
        "JSON, with a verdict on each claim by its rule. Small by default (seconds to two minutes on one "
        "core); --full takes the paper's sizes. --all makes every item and the register of claims (register.json, .csv, .md, "
        "index.html); an item that is there with the same settings is not made again.",
        epilog="items:\n" + "\n".join(_listed()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("name", nargs="?", choices=_runnable(), metavar="NAME", help="an item; see below")
    choice.add_argument("--all", action="store_true", help="all items, and the register of claims")
    choice.add_argument("--list", action="store_true", help="list figures, tables and theorems by paper, and exit")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="the smallest sizes (--all: under 20 minutes on two cores)")
    size.add_argument("--full", action="store_true", help="the paper's sizes: minutes to weeks")
    parser.add_argument(
        "--seed", type=whole(0, "an integer from 0 on", 2**32), default=0, help="the first seed (default: 0)"
    )
    parser.add_argument("--fresh", action="store_true", help="with --all: make everything again")
    parser.add_argument(
        "--jobs",
        type=whole(1, "a positive integer"),
        help="with --all: items at once; of one item: trainings at once (default: 1)",
    )
    parser.add_argument("--backend", choices=("loky", "dask"), help="with --all: joblib's, e.g. a Dask cluster")
    add_folders(parser, "runs/reproduce", "the files")
    networks = parser.add_argument_group("revised ResNets")
    networks.add_argument("--depth", type=int, choices=(18, 50), help="only this one (default: 18, of table 5 and with "
                          "--full 50 too)")  # fmt: skip
    networks.add_argument("--images", choices=("mnist", "cifar10", "photographs"), help="only these (default: MNIST or "
                          "its sample, and CIFAR-10 if its files are in --data)")  # fmt: skip
    networks.add_argument("--checkpoint", type=Path, help="measure this trained network; otherwise one is trained, and "
                          "kept in the folder networks of --out")  # fmt: skip


def run_reproduce(arguments: argparse.Namespace) -> int:
    """Make one item or all; print the verdicts; write the files.

    Args:
        arguments: What the parser of `add_parser` gave.

    Returns:
        The exit code: 0; 1 if an item of `--all` failed; 2 if the output cannot be written, there are no images, a
        checkpoint does not fit, or Dask is asked for and not installed.
    """
    if arguments.list:
        print("\n".join(_listed()))
        return 0
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        return _run_all(arguments) if arguments.all else _run_one(arguments)
    except (OSError, ModuleNotFoundError, RefusedError) as error:
        print(f"fpstab reproduce: {error}", file=sys.stderr)
        return 2


def _run_one(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from fpstab.experiments.register.items import make_task, run_item

    console = Console(highlight=False)
    entry = ENTRIES[arguments.name]
    with console.status(f"{arguments.name}: {entry.text}…"):
        import torch

        torch.set_num_threads(1)  # enough for matrices this small; more runs at once is better: --jobs
        task = make_task(
            arguments.name,
            out=arguments.out,
            size=_size(arguments),
            seed=arguments.seed,
            options={name: getattr(arguments, name) for name in _OPTIONS},
            entries=ENTRIES,
        )
        record = run_item(task)
    console.print(record["verdict"], markup=False)
    console.print(
        f"{record['seconds']:.0f} s; picture: {task.file('.png')}\npoints: {task.file('.csv')}\n"
        f"figures: {task.file('.json')}",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _run_all(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from fpstab.experiments.register.items import make_task, run_items
    from fpstab.experiments.register.summary import write_summary

    console = Console(highlight=False)
    given = {name: getattr(arguments, name) for name in _OPTIONS if name != "jobs"} | {"jobs": 1}
    jobs = arguments.jobs or 1
    with _backend(arguments.backend, jobs):
        tasks = [
            make_task(
                name, out=arguments.out, size=_size(arguments), seed=arguments.seed, options=given, entries=ENTRIES
            )
            for name in _runnable()
        ]
        with _shown(console, len(tasks)) as (begins, ends):
            records = run_items(tasks, fresh=arguments.fresh, jobs=jobs, begins=begins, ends=ends)
    files = write_summary(records, arguments.out, ENTRIES)
    failed = [record["item"] for record in records if record.get("error")]
    console.print("\n".join(f"{file.name}: {file}" for file in files), markup=False, soft_wrap=True)
    if failed:
        print(f"fpstab reproduce: {len(failed)} of {len(records)} items failed: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


@contextlib.contextmanager
def _backend(name: str | None, jobs: int) -> Iterator[None]:
    """Of joblib; for Dask its current client, or else a cluster on this machine."""
    with contextlib.ExitStack() as stack:
        if name == "dask":
            try:
                distributed = import_module("distributed")
            except ModuleNotFoundError as error:
                raise RefusedError("--backend dask needs Dask's scheduler: pip install dask distributed.") from error
            try:
                distributed.get_client()
            except ValueError:
                stack.enter_context(distributed.Client(n_workers=jobs, threads_per_worker=1, dashboard_address=None))
        if name is not None:
            from joblib import parallel_config  # type: ignore[import-untyped]

            stack.enter_context(parallel_config(backend=name))
        yield


@contextlib.contextmanager
def _shown(console: "Console", total: int) -> "Iterator[tuple[Any, Any]]":
    """A progress bar with the current item, and the verdicts of each item as it ends."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=total)

        def begins(task: "Task") -> None:
            progress.update(bar, description=f"{task.name}: {task.entry.text}")

        def ends(task: "Task", record: "Record") -> None:
            progress.advance(bar)
            kept = "as before" if record.get("kept") else f"{record['seconds']:.0f} s"
            console.print(f"{task.name} ({kept})", markup=False, style="bold")
            said = f"failed: {record['error']}" if record.get("error") else str(record["verdict"])
            console.print("\n".join(f"  {line}" for line in said.splitlines()), markup=False, soft_wrap=True)

        yield begins, ends


def _size(arguments: argparse.Namespace) -> str:
    return "full" if arguments.full else "quick" if arguments.quick else "small"


def _runnable() -> list[str]:
    return [name for name, entry in ENTRIES.items() if not entry.schematic]


def _listed() -> list[str]:
    """All entries by paper: name, where in the paper, what it shows, and what is to be known of it."""
    lines = []
    for paper, title in PAPERS.items():
        lines.append(f"Paper {paper}. {title}")
        lines += [_line(name, entry, paper) for name, entry in ENTRIES.items() if entry.items_of(paper)]
    return lines


def _line(name: str, entry: Entry, paper: int) -> str:
    note = f" [{entry.note}]" if entry.note else ""
    return f"  {name:22} {', '.join(entry.items_of(paper))}: {entry.text}{note}"

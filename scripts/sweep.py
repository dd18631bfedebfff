"""Every combination of some settings of a configuration, trained: python scripts/sweep.py SWEEP.yaml."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fpstab.experiments import sweeps
from fpstab.experiments.opening import RefusedError


def main(argv: list[str] | None = None) -> int:
    """Run a sweep; returns the exit code."""
    parser = argparse.ArgumentParser(description=sweeps.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP.yaml", help="what to train; see above")
    parser.add_argument("--out", type=Path, help="folder for results and logs (default: runs/NAME of the file)")
    parser.add_argument("--jobs", type=int, help="trainings at once (default: 1; on a cluster all that it takes)")
    parser.add_argument("--backend", choices=("loky", "dask"), default="loky", help="this machine, or a Dask cluster")
    parser.add_argument("--address", help="of the Dask scheduler, e.g. tcp://10.0.0.1:8786 (default: a cluster here)")
    arguments = parser.parse_args(argv)
    if arguments.jobs is not None and arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: expected a positive number.")
    console = Console()
    out = arguments.out or Path("runs") / arguments.sweep.stem
    try:
        runs = sweeps.sweep_runs(arguments.sweep)
        waiting = [run for run in runs if run.key not in sweeps.finished(out)]
        if len(waiting) < len(runs):
            console.print(f"{len(runs) - len(waiting)} of {len(runs)} runs are there already, in {out}.")
        columns = (TextColumn("trained"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=len(waiting))
            results = sweeps.run_sweep(
                runs,
                out,
                jobs=arguments.jobs,
                backend=arguments.backend,
                address=arguments.address,
                progress=lambda _: bar.advance(task),
            )
    except (RefusedError, OSError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    failed = [result for result in results if not result["ok"]]
    for result in failed:
        last = result["error"].strip().splitlines()[-1:] or ["no message"]
        console.print(f"failed: {result['settings']}: {last[0]}", style="red", markup=False, soft_wrap=True)
    console.print(
        f"{len(results) - len(failed)} of {len(results)} runs: {out / sweeps.RESULTS}", markup=False, soft_wrap=True
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

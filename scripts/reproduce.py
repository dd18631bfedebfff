"""All of the papers anew: every figure, table and theorem, the register of claims, and an index of the pictures.

What an earlier run has left with the same settings is not made again, so an interrupted run goes on where it stopped.
The same as `fpstab reproduce --all`; further options are those of `fpstab reproduce --help`.
"""

import argparse
import sys

from fpstab.cli import main

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="%(prog)s [--full] [OPTIONS]"
)
parser.add_argument("--full", action="store_true", help="the papers' sizes (days), instead of small ones (minutes)")
parser.add_argument("--out", default="runs/reproduce", help="folder for the files (default: runs/reproduce)")

if __name__ == "__main__":
    arguments, others = parser.parse_known_args()
    size = "--full" if arguments.full else "--quick"
    sys.exit(main(["reproduce", "--all", size, "--out", arguments.out, *others]))

"""What monitors have written: the lines of `fpstab.jsonl`, and what the quantities in them mean."""

from fpstab.records.lines import FILE_NAME, Run, append_line, jsonable, read_lines, read_runs
from fpstab.records.quantities import QUANTITIES, Quantities, parts_of, pattern_of, quantities_of

__all__ = [
    "FILE_NAME",
    "QUANTITIES",
    "Quantities",
    "Run",
    "append_line",
    "jsonable",
    "parts_of",
    "pattern_of",
    "quantities_of",
    "read_lines",
    "read_runs",
]

"""The register of claims: every figure, table and theorem of the five papers, how it is run, and what came of it."""

from fpstab.experiments.register.entries import ENTRIES, PAPERS, Entry
from fpstab.experiments.register.items import RefusedItemError, Task, run_item, run_items
from fpstab.experiments.register.summary import read_records, write_summary

__all__ = [
    "ENTRIES",
    "PAPERS",
    "Entry",
    "RefusedItemError",
    "Task",
    "read_records",
    "run_item",
    "run_items",
    "write_summary",
]

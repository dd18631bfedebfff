"""What became of a run, read from what its monitors wrote: a page, a text, or a live view."""

from fpstab.report.runs import Recorded, open_run

__all__ = ["Recorded", "open_run"]

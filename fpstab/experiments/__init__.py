"""Whole runs: the demo and, by and by, every experiment of the five papers."""

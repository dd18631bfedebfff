"""Every claim of the five papers that does not hold as printed, each shown by one small computation.

One room a paper; each holds its claims with their rules, and functions of a seed that return a `Finding`, listed in
`CHECKS`. Statements beside them that do hold are there too, so that the same samples say which is which.
"""

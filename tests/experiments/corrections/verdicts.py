"""Runs the checks of a paper, and collects their verdicts by where the claim stands."""

from fpstab.experiments.corrections.studies import checks_of


def verdicts(paper, seed):
    return {found.claim.item: found.verdict for found in (check(seed=seed) for check in checks_of(paper))}

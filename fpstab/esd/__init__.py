"""Heavy tails of weight spectra: the ESD of every weight of a network, its power law, its bulk, and the verdict."""

from fpstab.esd.bulk import MarchenkoPastur, MarchenkoPasturFit, fit_marchenko_pastur
from fpstab.esd.comparisons import TailComparison, TailComparisons, compare_tails
from fpstab.esd.entries import EntryTail, entry_tail
from fpstab.esd.layers import LayerESD
from fpstab.esd.reports import ESDReport, esd_report
from fpstab.esd.spectra import WeightSpectrum, weight_spectrum
from fpstab.esd.tails import PowerLawFit, fit_power_law, hill, power_law_p_value
from fpstab.esd.verdicts import TailEvidence, TailVerdict, tail_verdict

__all__ = [
    "ESDReport",
    "EntryTail",
    "LayerESD",
    "MarchenkoPastur",
    "MarchenkoPasturFit",
    "PowerLawFit",
    "TailComparison",
    "TailComparisons",
    "TailEvidence",
    "TailVerdict",
    "WeightSpectrum",
    "compare_tails",
    "entry_tail",
    "esd_report",
    "fit_marchenko_pastur",
    "fit_power_law",
    "hill",
    "power_law_p_value",
    "tail_verdict",
    "weight_spectrum",
]

"""Heavy tails of weight spectra: the ESD of every weight of a network, its power law, its bulk, and the verdict."""

from fpstab.esd.bulk import MarchenkoPastur, MarchenkoPasturFit, fit_marchenko_pastur
from fpstab.esd.checkpoints import Checkpoint, CheckpointError, open_checkpoint
from fpstab.esd.comparisons import TailComparison, TailComparisons, compare_tails
from fpstab.esd.entries import EntryTail, entry_tail
from fpstab.esd.layers import LayerESD
from fpstab.esd.legend import LEGEND
from fpstab.esd.reports import ESDReport, esd_report
from fpstab.esd.spectra import WeightSpectrum, weight_spectrum
from fpstab.esd.tails import PowerLawFit, fit_power_law, hill, power_law_p_value
from fpstab.esd.verdicts import TailEvidence, TailVerdict, tail_verdict

__all__ = [
    "LEGEND",
    "Checkpoint",
    "CheckpointError",
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
    "open_checkpoint",
    "power_law_p_value",
    "tail_verdict",
    "weight_spectrum",
]

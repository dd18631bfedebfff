"""Heavy tails of weight spectra: the ESD of every weight of a network and the power law in its tail."""

from fpstab.esd.reports import ESDReport, LayerESD, esd_report
from fpstab.esd.spectra import WeightSpectrum, weight_spectrum
from fpstab.esd.tails import PowerLawFit, fit_power_law, hill

__all__ = [
    "ESDReport",
    "LayerESD",
    "PowerLawFit",
    "WeightSpectrum",
    "esd_report",
    "fit_power_law",
    "hill",
    "weight_spectrum",
]

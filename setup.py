"""Names the packages: `callbacks/` and `models/` stand at the top of the repository, not below `fpstab/`."""

from setuptools import find_packages, setup

packages = {*find_packages(include=["fpstab", "fpstab.*"]), "fpstab.callbacks", "fpstab.models"}
setup(packages=sorted(packages))

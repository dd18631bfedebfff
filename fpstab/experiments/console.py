"""The console of a whole run: what Lightning says of itself is left out."""

import logging


def quiet_lightning() -> None:
    """Keep Lightning's loggers to errors; importing either namespace sets their level, so that comes first."""
    import fpstab.callbacks  # noqa: F401

    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

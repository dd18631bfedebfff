"""The console of a whole run: what Lightning says of itself is left out."""

import logging


def quiet_lightning() -> None:
    """Keep Lightning's loggers to errors; importing Lightning sets them, so that comes first."""
    import pytorch_lightning  # noqa: F401

    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

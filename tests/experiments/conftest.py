import logging

import pytest


@pytest.fixture(autouse=True)
def _loggers_as_before():
    """Whole runs quieten Lightning for their process."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)

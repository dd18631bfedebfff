import warnings

import pytest


@pytest.fixture(autouse=True)
def _lightning_on_a_small_machine():
    """Advice of Lightning's that does not concern these trainings, named one by one."""
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*GPU available but not used.*",
            ".*exists and is not empty.*",
            ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
            ".*sampler has shuffling enabled.*",
            ".*but have no `val_dataloader`.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield

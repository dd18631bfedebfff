"""One base class for both of Lightning's namespaces.

`lightning.pytorch.Callback` is not `pytorch_lightning.Callback`, and each Trainer and CLI accepts only its own:
`Callback` here inherits from whichever is installed, from both where both are. Nothing else in
`fpstab.callbacks` names a namespace.
"""

import importlib
import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Callback as Callback
    from pytorch_lightning import LightningModule as LightningModule
    from pytorch_lightning import Trainer as Trainer
else:
    _namespaces = [name for name in ("pytorch_lightning", "lightning") if find_spec(name)]
    if not _namespaces:
        raise ImportError("fpstab.callbacks needs Lightning: pip install 'pytorch-lightning>=2.6'")
    _modules = [importlib.import_module({"lightning": "lightning.pytorch"}.get(n, n)) for n in _namespaces]
    Callback = type("Callback", tuple(m.Callback for m in _modules), {"__module__": __name__})
    LightningModule = Trainer = Any

# below Lightning's own logger: its handler, its level, and quiet where Lightning is
log = logging.getLogger("pytorch_lightning.fpstab" if find_spec("pytorch_lightning") else "lightning.pytorch.fpstab")

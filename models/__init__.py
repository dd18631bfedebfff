"""Networks, tasks and data to train them on.

The networks are plain `torch.nn.Module`s that anybody can wrap; the tasks and the data are Lightning's.
"""

from fpstab.models.autoencoder import Autoencoder, ConvAutoencoder
from fpstab.models.data import MNISTData
from fpstab.models.mlp import MLP
from fpstab.models.tasks import AutoencoderTask

__all__ = ["MLP", "Autoencoder", "AutoencoderTask", "ConvAutoencoder", "MNISTData"]

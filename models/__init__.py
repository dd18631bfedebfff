"""Networks, tasks and data to train them on.

The networks are plain `torch.nn.Module`s that anybody can wrap; the tasks and the data are Lightning's.
"""

from fpstab.models.attractors import ExemplarTask, GaussianMLP
from fpstab.models.autoencoder import Autoencoder, ConvAutoencoder
from fpstab.models.cifar import CIFAR10Data
from fpstab.models.classifier import ClassifierTask
from fpstab.models.conv_deq import ConvDEQ
from fpstab.models.data import MNISTData
from fpstab.models.deq import DEQAutoencoder, DEQClassifier
from fpstab.models.exemplars import CirclesData, ExemplarData, MemoriesData
from fpstab.models.language import LanguageTask
from fpstab.models.mlp import MLP
from fpstab.models.resnet import EqualWidthResNet
from fpstab.models.tasks import AutoencoderTask
from fpstab.models.text import TextData
from fpstab.models.transformer import DEQTransformer

__all__ = [
    "MLP",
    "Autoencoder",
    "AutoencoderTask",
    "CIFAR10Data",
    "CirclesData",
    "ClassifierTask",
    "ConvAutoencoder",
    "ConvDEQ",
    "DEQAutoencoder",
    "DEQClassifier",
    "DEQTransformer",
    "EqualWidthResNet",
    "ExemplarData",
    "ExemplarTask",
    "GaussianMLP",
    "LanguageTask",
    "MNISTData",
    "MemoriesData",
    "TextData",
]

"""Lightning's command line with fpstab's classes at hand: python scripts/train.py fit --config mnist_autoencoder."""

import sys

from fpstab.experiments.training import lightning_cli

if __name__ == "__main__":
    lightning_cli(sys.argv[1:])

"""Lightning's command line with fpstab's classes at hand: python scripts/train.py fit --config mnist_autoencoder."""

from fpstab.cli import train

if __name__ == "__main__":
    train()

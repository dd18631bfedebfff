import torch

# Small matrices gain nothing from threads, and on busy cores threads wait for each other.
torch.set_num_threads(1)

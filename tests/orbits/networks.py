"""Small networks with blocks of many kinds."""

import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, n, inplace=False):
        super().__init__()
        self.relu, self.linear = nn.ReLU(inplace=inplace), nn.Linear(n, n)

    def forward(self, x):
        return x + self.linear(self.relu(x))


class Shuffled(nn.Module):
    """Two stages with a permutation of the coordinates between them, and a norm before the head."""

    def __init__(self, n=6, classes=3, inplace=False, dropout=0.0):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(n, n), nn.BatchNorm1d(n), nn.Dropout(dropout))
        self.first = nn.ModuleList(Residual(n, inplace) for _ in range(2))
        self.second = nn.ModuleList(Residual(n, inplace) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(n), nn.Linear(n, classes)

    def forward(self, x):
        x = self.stem(x)
        for block in self.first:
            x = block(x)
        x = x.flip(1)
        for block in self.second:
            x = block(x)
        return self.head(self.norm(x))

    def observed(self, x):
        """Logits at every state, by hand."""
        x = self.stem(x)
        states = [x.flip(1)]
        for block in self.first:
            x = block(x.clone())
            states.append(x.flip(1))
        x = x.flip(1)
        for block in self.second:
            x = block(x.clone())
            states.append(x)
        return torch.stack([self.head(self.norm(state)) for state in states], 1)


class Tied(nn.Module):
    def __init__(self, n=6, classes=3, calls=4):
        super().__init__()
        self.block, self.head, self.calls = Residual(n), nn.Linear(n, classes), calls

    def forward(self, x):
        for _ in range(self.calls if isinstance(self.calls, int) else len(x)):
            x = self.block(x)
        return self.head(x)


class Tuples(nn.Module):
    """Blocks that return a tuple, as transformers' do, and a network that does too."""

    class Block(Residual):
        def forward(self, hidden, scale):
            return super().forward(hidden) * scale, torch.zeros(3)

    def __init__(self, n=6, classes=3):
        super().__init__()
        self.blocks = nn.ModuleList(Tuples.Block(n) for _ in range(3))
        self.head = nn.Linear(n, classes)

    def forward(self, x):
        for block in self.blocks:
            x, _ = block(hidden=x, scale=0.5)
        return {"logits": self.head(x)}


class CountsRows(nn.Module):
    """Looks at the number of rows before the blocks."""

    def __init__(self):
        super().__init__()
        self.blocks, self.head = nn.ModuleList([Residual(4), Residual(4)]), nn.Linear(4, 3)

    def forward(self, x):
        rows = x.shape[0]
        for block in self.blocks:
            x = block(x)
        return self.head(x.view(rows, 4))


class SkipsPast(nn.Module):
    """Its output depends on more than the last state."""

    def __init__(self):
        super().__init__()
        self.blocks, self.head = nn.ModuleList([Residual(4), Residual(4)]), nn.Linear(8, 3)

    def forward(self, x):
        a = self.blocks[0](x)
        return self.head(torch.cat((a, self.blocks[1](a)), 1))


class Narrowing(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.head = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4)), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.blocks(x))

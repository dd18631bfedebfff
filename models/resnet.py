"""Residual networks of equal width: every state has the same number of coordinates."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from fpstab.models._checks import is_int, require

Groups = Literal["all", "first", "none"]
Stem = Literal["conv", "patch"]
Norm = Literal["batch", "group"]

_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
_TILES = ((2, 2), (2, 1), (1, 2), (2, 1))  # before each stage: how height and width are cut
_STEM_WIDTH = 64


class EqualWidthResNet(nn.Module):
    """A ResNet whose blocks map one space to itself: `[B, channels, size, size] -> [B, classes]` (paper 5, figure 1).

    Nothing is pooled or widened after the stem. Where a ResNet would halve the image and double the channels, a
    `Patch` moves tiles of the image into the channels, a permutation of the coordinates; the convolutions of the
    blocks are grouped by the tiles. So the states before, between and after the blocks all have `n_state`
    coordinates, and the head is one linear map of all of them.

    Args:
        depth: 18 (8 blocks) or 50 (16 blocks).
        classes: How many values the head has.
        size: The side of the images in pixels, a multiple of 32.
        channels: The channels of the images.
        groups: Which blocks are grouped by tiles: `"all"` of them, the `"first"` of each stage, or `"none"`.
        stem: `"conv"`, a 7×7 convolution of stride 2, norm, ReLU and 3×3 max pooling of stride 2; or `"patch"`,
            which cuts the image in 4×4 tiles. (Paper 5 says both: that the first convolution was kept, and that
            a patch replaced it.)
        tied: Whether one block is applied over and over: 8 or 16 times, after the first patch.
        post_relu: Whether a ReLU follows the addition; without, a block is exactly x + F(x).
        norm: `"batch"` or `"group"` (each tile for itself); `None` is `"batch"`, and `"group"` if tied.

    Attributes:
        stem: From the image to the first state, but for the first patch.
        patches: The patches, one before each stage (only the first if tied).
        blocks: The blocks, in order (only one if tied).
        head: The linear map of the last state's coordinates.
        n_blocks: How many blocks a forward applies.
        n_state: Coordinates of a state.

    Raises:
        ValueError: An argument is not of this kind, or `tied` is combined with `norm="batch"`; the message says so.

    >>> net = EqualWidthResNet(18)
    >>> net(torch.zeros(2, 3, 32, 32)).shape, net.n_blocks, net.n_state
    (torch.Size([2, 10]), 8, 4096)
    """

    def __init__(
        self,
        depth: Literal[18, 50] = 18,
        classes: int = 10,
        size: int = 32,
        channels: int = 3,
        groups: Groups = "all",
        stem: Stem = "conv",
        tied: bool = False,
        post_relu: bool = True,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        require(is_int(depth, 0) and depth in _BLOCKS, "depth", depth, "18 or 50")
        require(is_int(classes, 1), "classes", classes, "a positive integer")
        require(is_int(size, 1) and size % 32 == 0, "size", size, "a multiple of 32 (MNISTData pads: size=32)")
        require(is_int(channels, 1), "channels", channels, "a positive integer")
        require(groups in ("all", "first", "none"), "groups", groups, "'all', 'first' or 'none'")
        require(stem in ("conv", "patch"), "stem", stem, "'conv' or 'patch'")
        require(isinstance(tied, bool), "tied", tied, "True or False")
        require(isinstance(post_relu, bool), "post_relu", post_relu, "True or False")
        require(norm in ("batch", "group", None), "norm", norm, "'batch', 'group' or None")
        if tied and norm == "batch":
            raise ValueError(
                "norm='batch' does not go with tied=True: the running statistics of one BatchNorm would mix those of "
                "all iterations, and evaluation would differ from training. Use norm='group'."
            )
        norm = norm or ("group" if tied else "batch")
        self.input_shape = (channels, size, size)
        self.stem = _stem(stem, channels, norm)
        width = _STEM_WIDTH if stem == "conv" else 16 * channels
        self.n_state = width * (size // 4) ** 2
        self.n_blocks = sum(_BLOCKS[depth])
        self.patches, self.blocks = nn.ModuleList(), nn.ModuleList()
        self._starts: list[int] = []  # the first block of each stage
        n_tiles = 1
        for tiles, count in zip(_TILES, (1,) if tied else _BLOCKS[depth], strict=False):
            n_tiles *= tiles[0] * tiles[1]
            self._starts.append(len(self.blocks))
            self.patches.append(Patch(*tiles))
            for i in range(count):
                grouped = groups == "all" or (groups == "first" and i == 0)
                self.blocks.append(Bottleneck(width * n_tiles, n_tiles, grouped, norm, post_relu))
        self.head = nn.Linear(self.n_state, classes)

    def states(self, x: Tensor) -> Iterator[Tensor]:
        """The `n_blocks + 1` states of images `x`, each `[B, …]` with `n_state` values: the first block's input, and
        the output of every block. In their own layouts: `transport` brings them to the last one's.

        Raises:
            ValueError: `x` has another shape.
        """  # noqa: D205
        if x.shape[1:] != self.input_shape:
            raise ValueError(f"expected images [B, {', '.join(map(str, self.input_shape))}], got {list(x.shape)}")
        x = self.patches[0](self.stem(x))
        yield x
        for i in range(self.n_blocks):
            if i and i in self._starts:
                x = self.patches[self._starts.index(i)](x)
            x = self.blocks[i % len(self.blocks)](x)
            yield x

    def transport(self, state: Tensor, t: int) -> Tensor:
        """State `t` `[B, …]` in the layout of the last state, flat `[B, n_state]`: by the patches still to come.

        The head applied to it is the observation of the state. Without them its weights would meet other
        coordinates than those that they were made for.
        """
        for start, patch in zip(self._starts, self.patches, strict=True):
            if start and t <= start:
                state = patch(state)
        return state.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """The logits `[B, classes]` of images `x` `[B, channels, size, size]`.

        Raises:
            ValueError: `x` has another shape.
        """
        for state in self.states(x):
            last = state
        logits: Tensor = self.head(last.flatten(1))
        return logits


class Patch(nn.Module):
    """Cuts an image in tiles and puts them side by side as channels, all channels of the first tile first.

    A permutation of the coordinates, so an isometry.

    Args:
        rows: Tiles along the height.
        columns: Tiles along the width.

    >>> Patch(2, 1)(torch.arange(8.0).reshape(1, 1, 4, 2)).tolist()
    [[[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], [6.0, 7.0]]]]
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C·rows·columns, H/rows, W/columns]`."""
        b, c, h, w = x.shape
        tiles = x.reshape(b, c, self.rows, h // self.rows, self.columns, w // self.columns)
        return tiles.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, h // self.rows, w // self.columns)

    def extra_repr(self) -> str:
        """What `print(network)` shows."""
        return f"{self.rows}, {self.columns}"


class Bottleneck(nn.Module):
    """A residual block `[B, C, H, W]` to the same: x + F(x), F of 1×1, 3×3 and 1×1 convolutions by way of C/4 channels.

    Args:
        width: C.
        n_tiles: How many tiles stand in the channels.
        grouped: Whether each tile has its own convolutions.
        norm: `"batch"`, or `"group"`: each tile for itself.
        post_relu: Whether a ReLU follows the addition.
    """

    def __init__(self, width: int, n_tiles: int, grouped: bool, norm: Norm, post_relu: bool) -> None:
        super().__init__()
        inner, groups = width // 4, n_tiles if grouped else 1
        self.residual = nn.Sequential(
            nn.Conv2d(width, inner, 1, groups=groups, bias=False),
            _norm(norm, n_tiles, inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=groups, bias=False),
            _norm(norm, n_tiles, inner),
            nn.ReLU(),
            nn.Conv2d(inner, width, 1, groups=groups, bias=False),
            _norm(norm, n_tiles, width),
        )
        self.post_relu = post_relu

    def forward(self, x: Tensor) -> Tensor:
        """The next state."""
        x = x + self.residual(x)
        return torch.relu(x) if self.post_relu else x

    def extra_repr(self) -> str:
        """What `print(network)` shows."""
        return f"post_relu={self.post_relu}"


def _stem(kind: Stem, channels: int, norm: Norm) -> nn.Module:
    if kind == "patch":
        return Patch(4, 4)
    return nn.Sequential(
        nn.Conv2d(channels, _STEM_WIDTH, 7, stride=2, padding=3, bias=False),
        _norm(norm, 1, _STEM_WIDTH),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def _norm(kind: Norm, n_tiles: int, width: int) -> nn.Module:
    return nn.BatchNorm2d(width) if kind == "batch" else nn.GroupNorm(n_tiles, width)

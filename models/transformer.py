"""A deep-equilibrium transformer for language (paper 4, §4.2): a decoder block whose state solves z = f(z, x)."""

import math

import torch
from torch import Generator, Tensor, nn

from fpstab.equilibrium import Anderson, PhantomGradient, Solver
from fpstab.models._checks import is_int, is_number, require
from fpstab.models._families import Family, check_family, draw_, outer_linear
from fpstab.models.deq import Equilibrium, OnFailure, seeded

_SQUARE = ("goe", "antisymmetric", "elliptic", "haar_normal")
_WIDENING = 4  # of the dense maps where the family allows it, as in the paper: 700 to 2800


class CausalAttention(nn.Module):
    """Self-attention in which a place sees itself and what stands before it: `[B, T, width] -> [B, T, width]`.

    Written out, not by torch's fused kernels: those have no second derivative on a CPU, and the Jacobian of an
    equilibrium is looked at by second derivatives.

    Args:
        width: Of the state.
        heads: How many; they share the width.
        generator: Source of randomness; `None`: torch's global one.
    """

    def __init__(self, width: int, heads: int, generator: Generator | None) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (outer_linear(width, width, generator) for _ in range(4))

    def forward(self, h: Tensor) -> Tensor:
        """The mixture of values at every place, `[B, T, width]`."""
        q, k, v = (
            part(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        places = torch.arange(h.shape[1], device=h.device)
        later = places > places.unsqueeze(1)  # [T, T]: of a row's place
        mixed: Tensor = torch.softmax(scores.masked_fill(later, -math.inf), -1) @ v
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class DecoderBlock(nn.Module):
    """f of paper 4's transformer: h = z + x; h += Attn(LN h); h += Dense₂(gelu(Dense₁(LN h))); f = LN h.

    Args:
        width: Of the state.
        inner: Between the two dense maps.
        heads: Of the attention.
        family: Of both dense maps, whose biases start at 0. Everything else starts as torch's layers do.
        sqrt_v: √V of both.
        tau: Symmetry of the elliptic family.
        generator: Source of randomness; `None`: torch's global one.

    Attributes:
        attention: Attn.
        dense: Dense₁ and Dense₂.
        norms: The three LayerNorms, in the order in which they are used.
    """

    def __init__(
        self, width: int, inner: int, heads: int, family: Family, sqrt_v: float, tau: float, generator: Generator | None
    ) -> None:
        super().__init__()
        dense = [outer_linear(inputs, outputs, generator) for inputs, outputs in ((width, inner), (inner, width))]
        with torch.no_grad():
            for layer in dense:
                draw_(layer.weight, family, sqrt_v, tau, generator)
                layer.bias.zero_()
        self.dense = nn.ModuleList(dense)  # before the attention: the monitor measures the first of the largest weights
        self.attention = CausalAttention(width, heads, generator)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """The next state of a state z and an injection x, all `[B, T, width]`."""
        h = z + x
        h = h + self.attention(self.norms[0](h))
        h = h + self.dense[1](nn.functional.gelu(self.dense[0](self.norms[1](h))))
        out: Tensor = self.norms[2](h)
        return out


class DEQTransformer(nn.Module):
    """A deep-equilibrium language model: tokens `[B, T]` to logits of the next token `[B, T, vocabulary]` (paper 4, §4.2).

    x is the token's embedding plus a learned one of its place; the equilibrium z = f(z, x) of one causal decoder block
    (`DecoderBlock`), a whole sequence being one sample, goes to a dense layer. That layer has a weight of its own, not the
    embedding's, as in the code that the paper modified (Khan 2020); the paper does not say. Only the two dense maps of
    the block come from a family of random matrices.

    **Shape of the dense maps.** The paper widens them fourfold for random and orthogonal weights, and leaves them square
    for the GOE, which must be; that is `inner=None`, and mixes the effect of the family with that of the shape.
    `inner=width` makes them square for every family: the fair comparison. Square is also where one √V means
    one scale: of rectangles, `random` keeps V as the variance times fan-in and `orthogonal` as the square of the singular
    values, so that a fourfold widening is twice as long in the first as in the second.

    **The equilibrium.** f is causal, so an equilibrium is: what stands at a place does not hear of later tokens. An iterate
    of plain iteration is causal, too. One of Anderson's or Broyden's method is not, since both mix iterates by weights
    that look at the whole sequence: short of the equilibrium, tokens leak into what is predicted from before them, and
    the perplexity is no longer that of a language model. The default solver reaches the tolerance at first, and along
    the trainings measured in docs/deq-training.md. The paper's setting, which does not, is `solver=Broyden(max_iter=20)`
    with `on_failure="warn"`, so that gradients are taken at the last iterates as if those were equilibria.

    Args:
        vocabulary: How many tokens there are.
        length: Places that have an embedding; T is at most that.
        width: N, the coordinates of z at a place.
        heads: Of the attention; a divisor of the width.
        inner: Width between the two dense maps; `None`: four times the width, or the width for families that are
            square.
        family: Of the dense maps: `"random"`, `"orthogonal"`, `"goe"`, `"antisymmetric"`, `"elliptic"` or
            `"haar_normal"`.
        sqrt_v: √V, the scale of both.
        tau: Symmetry of the elliptic family, from −1 to 1.
        embedding_std: Standard deviation of both embeddings at first.
        solver: For the equilibrium.
        backward: For the adjoint equation, or a `PhantomGradient`; `None`: the solver.
        tol: Of the equilibrium, and of the gradient.
        on_failure: What becomes of sequences whose equilibrium is not found, as in `DEQClassifier`.
        seed: Of all parameters; `None`: torch's global generator.

    Attributes:
        tokens: Embedding of the tokens.
        places: Embedding of the places `[length, width]`.
        equilibrium: From x to z; its `layer` is the `FixedPointLayer`, its `layer.f` the `DecoderBlock`.
        head: From z to the logits.

    Raises:
        ValueError: An argument is not of its kind; the message names it.

    >>> net = DEQTransformer(vocabulary=11, length=8, width=16, heads=2, family="goe", sqrt_v=0.3, seed=0)
    >>> net(torch.zeros(2, 5, dtype=torch.long)).shape
    torch.Size([2, 5, 11])
    """

    def __init__(
        self,
        vocabulary: int = 256,
        length: int = 128,
        width: int = 128,
        heads: int = 4,
        inner: int | None = None,
        family: Family = "random",
        sqrt_v: float = 0.3,
        tau: float = 0.0,
        embedding_std: float = 1.0,
        solver: Solver = Anderson(),  # noqa: B008
        backward: Solver | PhantomGradient | None = None,
        tol: float = 1e-3,
        on_failure: OnFailure = "mask",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        require(is_int(vocabulary, 2), "vocabulary", vocabulary, "an integer ≥ 2")
        require(is_int(length, 1), "length", length, "a positive integer")
        require(is_int(width, 1), "width", width, "a positive integer")
        require(is_int(heads, 1) and width % heads == 0, "heads", heads, f"a positive divisor of width={width}")
        check_family(family, sqrt_v, tau, False)
        if inner is None:
            inner = width if family in _SQUARE else _WIDENING * width
        require(is_int(inner, 1), "inner", inner, "None or a positive integer")
        if family in _SQUARE and inner != width:
            raise ValueError(
                f"family={family!r} has square matrices only, so inner must be width={width} (or None), got {inner}; "
                "random and orthogonal have any"
            )
        require(is_number(embedding_std) and embedding_std > 0, "embedding_std", embedding_std, "a positive number")
        generator = seeded(seed)
        self.vocabulary, self.length, self.width = vocabulary, length, width
        draws = torch.empty(vocabulary + length, width).normal_(0.0, embedding_std, generator=generator)
        self.tokens = nn.Embedding(vocabulary, width, _weight=draws[:vocabulary].clone())
        self.places = nn.Parameter(draws[vocabulary:].clone())
        block = DecoderBlock(width, inner, heads, family, sqrt_v, tau, generator)
        self.equilibrium = Equilibrium(block, solver, backward, tol, on_failure)
        self.head = outer_linear(width, vocabulary, generator)

    def encode(self, tokens: Tensor) -> Tensor:
        """The equilibria `[B, T, width]` of tokens `[B, T]`.

        Raises:
            ValueError: These are no integers `[B, T]` below `vocabulary`, or T is 0 or above `length`.
        """
        self._check(tokens)
        state: Tensor = self.equilibrium(self.tokens(tokens) + self.places[: tokens.shape[1]])
        return state

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits `[B, T, vocabulary]` of the token that follows each of the tokens `[B, T]`.

        Raises:
            ValueError: These are no integers `[B, T]` below `vocabulary`, or T is 0 or above `length`.
        """
        logits: Tensor = self.head(self.encode(tokens))
        return logits

    def _check(self, tokens: Tensor) -> None:
        whole = not (tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool)
        if not whole or tokens.ndim != 2 or not 0 < tokens.shape[1] <= self.length:
            raise ValueError(
                f"expected tokens [B, T], integers, with T from 1 to length={self.length}, got {tokens.dtype} "
                f"{list(tokens.shape)}"
            )
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocabulary:
            raise ValueError(
                f"tokens are from 0 to {self.vocabulary - 1} (vocabulary={self.vocabulary}), got "
                f"{int(tokens.min())} to {int(tokens.max())}: give the network the vocabulary of the data's tokenizer"
            )

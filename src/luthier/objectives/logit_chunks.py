"""Losses of a linear head, and their gradients, without ever holding all logits at once.

Comes in: hidden states of the rows that carry loss, the head's matrix, targets. Goes out: a loss a
row and, where they are asked for, gradients. No autograd here: `linear_cross_entropy` wraps it.

Rows go through in chunks whose number of logits is bounded, so that memory grows neither with the
number of rows nor with the vocabulary. A chunk's softmax is done in tiles of a few rows in float32
which stay in the cache; its logits, and then its gradient in the same place, are in the type of the
matrix products.

Shape suffixes: N rows, C rows of one chunk, T rows of one tile, K inputs of a product,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

CHUNK_ELEMENTS = 2**24
"""Logits of one chunk: 32 MB in bfloat16. Fewer make the products slower: 64 rows of a vocabulary
of 49k reach 80 % of the rate of 256 rows."""
ROW_BLOCK = 256
"""Chunks of more rows are at most a multiple of this: oneDNN multiplies 250 or 500 rows at its full
rate, and 300 rows 8 % slower (measured in bfloat16 with AVX-512)."""
TILE_ELEMENTS = 2**21
"""Logits of one tile on a CPU: 8 MB in float32. Each operation on a tile ends where the threads
wait for each other: on a busy machine tiles of 2 MB made the loss take up to four times as long,
and on an idle one they were no faster."""


@dataclass(frozen=True, slots=True)
class Product:
    """One term of the logits: `inputs @ matrix.T`, of shapes (N, K) and (V, K)."""

    inputs: torch.Tensor
    matrix: torch.Tensor


@dataclass(frozen=True, slots=True)
class LogitRule:
    """How logits and losses come from the products.

    Attributes:
        scale: Multiplies the products and the bias.
        softcap: Bounds the logits: softcap * tanh(logits / softcap); None for no bound.
        label_smoothing: Share of each target spread evenly over the vocabulary.
        chunk_rows: Rows of one chunk; None to choose by the size of the vocabulary.
        dft: Multiply each loss by its target's probability, which counts as a constant.
    """

    scale: float = 1.0
    softcap: float | None = None
    label_smoothing: float = 0.0
    chunk_rows: int | None = None
    dft: bool = False


@dataclass(frozen=True, slots=True)
class Scores:
    """Loss of each of N rows, in float32, and whether the target was the most likely token."""

    losses: torch.Tensor
    correct: torch.Tensor


@dataclass(frozen=True, slots=True)
class Gradients:
    """Room in float32 for what a gradient is wanted of, None elsewhere.

    What it holds before is overwritten, not added to: zeroing a matrix is a pass over it, too.
    """

    inputs: Sequence[torch.Tensor | None]
    matrices: Sequence[torch.Tensor | None]
    bias: torch.Tensor | None


def score_rows(
    products: Sequence[Product],
    bias_V: torch.Tensor | None,
    targets_N: torch.Tensor,
    rule: LogitRule,
    factors_N: torch.Tensor | None = None,
    into: Gradients | None = None,
) -> Scores:
    """Compute the cross-entropy of each row and, with `into`, the gradients.

    Args:
        products: Terms of the logits, all of one float type, in which they are multiplied.
        bias_V: Added to the products, in float32.
        targets_N: The right token of each row.
        rule: How logits and losses come from the products.
        factors_N: With `into`: what each row's loss is multiplied by, in float32; None is 1.
        into: The gradient of sum(factors x losses) is written here; zeros where there are no rows.

    Source:
        Gradients that are formed chunk by chunk beside the loss: Liger Kernel (arXiv 2410.10989),
        section 3.2, fused linear cross-entropy; the logits that are never held: Cut Your Losses
        (arXiv 2411.09009).
    """
    size = products[0].matrix.shape[0]
    exact = _exact_type(products[0].inputs.dtype)
    losses_N = torch.empty(targets_N.shape, dtype=exact, device=targets_N.device)
    correct_N = torch.empty(targets_N.shape, dtype=torch.bool, device=targets_N.device)
    chunks = list(_chunks(len(targets_N), size, rule.chunk_rows))
    if not chunks:
        _zero(into)
        return Scores(losses_N, correct_N)
    logits = products[0].inputs.new_empty(max(c.stop - c.start for c in chunks), size)
    tile = _Tile(logits, rule, bias_V, exact)
    for chunk in chunks:
        logits_CV = logits[: chunk.stop - chunk.start]
        _multiply(products, chunk, logits_CV)
        for part in tile.parts(logits_CV):
            rows = slice(chunk.start + part.start, chunk.start + part.stop)
            losses_N[rows], correct_N[rows] = tile.score(logits_CV[part], targets_N[rows])
            if into is not None:
                factors_T = None if factors_N is None else factors_N[rows]
                tile.differentiate(logits_CV[part], targets_N[rows], factors_T)
        if into is not None:
            _add_gradients(products, chunk, logits_CV, into, tile.num_elements)
    return Scores(losses_N, correct_N)


def _exact_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _chunks(num_rows: int, size: int, chunk_rows: int | None) -> Iterator[slice]:
    # Chunks of nearly one size: a short last one would be multiplied at a lower rate.
    most = max(1, chunk_rows or CHUNK_ELEMENTS // size)
    if chunk_rows is None and most > ROW_BLOCK:
        most -= most % ROW_BLOCK
    count = -(-num_rows // most)
    for i in range(count):
        yield slice(num_rows * i // count, num_rows * (i + 1) // count)


def _multiply(products: Sequence[Product], chunk: slice, logits_CV: torch.Tensor) -> None:
    first, *others = products
    torch.mm(first.inputs[chunk], first.matrix.t(), out=logits_CV)
    for term in others:
        logits_CV.addmm_(term.inputs[chunk], term.matrix.t())


class _Tile:
    """A few rows of logits at a time, in float32."""

    def __init__(
        self,
        logits_CV: torch.Tensor,
        rule: LogitRule,
        bias_V: torch.Tensor | None,
        exact: torch.dtype,
    ) -> None:
        num_rows, size = logits_CV.shape
        self.num_elements = num_rows * size
        if logits_CV.device.type == "cpu":
            self.num_elements = TILE_ELEMENTS
        self._rows = min(num_rows, max(1, self.num_elements // size))
        self._rule, self._bias_V = rule, bias_V
        self._spare = torch.empty(self._rows, size, dtype=exact, device=logits_CV.device)
        self._probability_T: torch.Tensor | None = None
        self._widened = None if logits_CV.dtype == exact else torch.empty_like(self._spare)

    def parts(self, logits_CV: torch.Tensor) -> Iterator[slice]:
        """Cut a chunk into tiles."""
        for start in range(0, len(logits_CV), self._rows):
            yield slice(start, min(start + self._rows, len(logits_CV)))

    def score(
        self, products_TV: torch.Tensor, targets_T: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return losses and hits, and keep the probabilities for `differentiate`."""
        x_TV, spare_TV = self._wide(products_TV), self._spare[: len(products_TV)]
        if self._widened is not None:
            x_TV.copy_(products_TV)
        self._finish(x_TV)
        top_T, target_T = x_TV.amax(-1), x_TV.gather(1, targets_T[:, None])[:, 0]
        correct_T = _hits(x_TV, target_T, top_T, targets_T, spare_TV)
        smoothing = self._rule.label_smoothing
        mean_T = x_TV.mean(-1) if smoothing else target_T
        if self._rule.softcap is not None:
            torch.div(x_TV, self._rule.softcap, out=spare_TV)
        torch.softmax(x_TV, -1, out=x_TV)
        # The likeliest token's probability is 1 / sum(exp(x - top)), and never underflows.
        log_sum_T = -x_TV.amax(-1).log()
        losses_T = top_T - target_T + log_sum_T
        if self._rule.dft:
            self._probability_T = losses_T.neg().exp()
        if smoothing:
            losses_T = (1 - smoothing) * losses_T + smoothing * (top_T - mean_T + log_sum_T)
        if self._probability_T is not None:
            losses_T = losses_T * self._probability_T
        return losses_T, correct_T

    def differentiate(
        self, products_TV: torch.Tensor, targets_T: torch.Tensor, factors_T: torch.Tensor | None
    ) -> None:
        """Put in the products' place the gradient of factors x losses; call it after `score`."""
        p_TV, smoothing = self._wide(products_TV), self._rule.label_smoothing
        if smoothing:
            p_TV.sub_(smoothing / p_TV.shape[1])
        index_T1 = targets_T[:, None]
        p_TV.scatter_add_(1, index_T1, p_TV.new_full(index_T1.shape, smoothing - 1))
        if self._rule.softcap is not None:
            # d tanh(x) = 1 - tanh(x)^2
            p_TV.mul_(self._spare[: len(p_TV)].square_().neg_().add_(1))
        if self._probability_T is not None:
            scaled_T = self._probability_T
            factors_T = scaled_T if factors_T is None else scaled_T * factors_T
        if factors_T is not None:
            p_TV.mul_((factors_T * self._rule.scale)[:, None])
        elif self._rule.scale != 1:
            p_TV.mul_(self._rule.scale)
        if self._widened is not None:
            products_TV.copy_(p_TV)

    def _wide(self, products_TV: torch.Tensor) -> torch.Tensor:
        return products_TV if self._widened is None else self._widened[: len(products_TV)]

    def _finish(self, x_TV: torch.Tensor) -> None:
        # From products to logits, in place.
        if self._bias_V is not None:
            x_TV.add_(self._bias_V)
        if self._rule.scale != 1:
            x_TV.mul_(self._rule.scale)
        if self._rule.softcap is not None:
            x_TV.div_(self._rule.softcap).tanh_().mul_(self._rule.softcap)


def _hits(
    x_TV: torch.Tensor,
    target_T: torch.Tensor,
    top_T: torch.Tensor,
    targets_T: torch.Tensor,
    spare_TV: torch.Tensor,
) -> torch.Tensor:
    # As argmax decides, the first of equals wins; but argmax over all rows takes as long as the
    # rest of a tile's work, so it is asked only where two tokens share the highest logit.
    correct_T = target_T == top_T
    num_highest_T = torch.eq(x_TV, top_T[:, None], out=spare_TV).sum(-1)
    doubtful_T = correct_T & (num_highest_T > 1)
    if doubtful_T.any():
        correct_T[doubtful_T] = x_TV[doubtful_T].argmax(-1) == targets_T[doubtful_T]
    return correct_T


def _zero(into: Gradients | None) -> None:
    if into is not None:
        for gradient in (*into.inputs, *into.matrices, into.bias):
            if gradient is not None:
                gradient.zero_()


def _add_gradients(
    products: Sequence[Product],
    chunk: slice,
    gradient_CV: torch.Tensor,
    into: Gradients,
    slab_elements: int,
) -> None:
    first = chunk.start == 0
    for term, inputs, matrix in zip(products, into.inputs, into.matrices, strict=True):
        if inputs is not None:
            inputs[chunk] = torch.mm(gradient_CV, term.matrix)
        if matrix is not None:
            _add_product(matrix, gradient_CV, term.inputs[chunk], slab_elements, first)
    if into.bias is not None:
        part_V = gradient_CV.sum(0, dtype=into.bias.dtype)
        _ = into.bias.copy_(part_V) if first else into.bias.add_(part_V)


def _add_product(
    sum_VK: torch.Tensor,
    gradient_CV: torch.Tensor,
    inputs_CK: torch.Tensor,
    slab_elements: int,
    first: bool,
) -> None:
    if sum_VK.dtype == gradient_CV.dtype:
        sum_VK.addmm_(gradient_CV.t(), inputs_CK, beta=0 if first else 1)
        return
    # Low precision products of chunks are added up in float32, slab by slab of the vocabulary, so
    # that a slab is still in the cache. (Adding another type directly costs ten times the copy.)
    size, width = sum_VK.shape
    rows = max(1, slab_elements // width)
    narrow = gradient_CV.new_empty(rows, width)
    wide = sum_VK.new_empty(rows, width)
    for start in range(0, size, rows):
        part_CV, slab = gradient_CV[:, start : start + rows], sum_VK[start : start + rows]
        product = torch.mm(part_CV.t(), inputs_CK, out=narrow[: len(slab)])
        _ = slab.copy_(product) if first else slab.add_(wide[: len(slab)].copy_(product))

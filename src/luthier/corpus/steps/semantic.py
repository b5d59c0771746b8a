"""Semantic duplicates: rows that say in other words what another row says.

In: rows. Out: the rows to drop, each with the kept row that it is like. Texts are compared by their
embeddings, the mean of the vectors of their tokens: no neural network runs, so that a processor
does, but the order of words counts for nothing. Every pair of rows of the same kind is compared;
for that the time grows with the square of the rows, while the memory beside the embeddings does
not. A text without a token that the model knows is like no other.

Source:
    Abbas et al., "SemDeDup: Data-efficient learning at web-scale through semantic deduplication"
    (2023), https://arxiv.org/abs/2303.09540; the embeddings are those of model2vec.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.contracts.corpus_step import Columns, Drop
from luthier.core.errors import MissingExtraError, ModelError, SettingsError
from luthier.corpus.steps.scopes import scopes_of
from luthier.corpus.steps.settings import SemanticSettings

Vectors = NDArray[np.float32]
"""One row's embeddings: scopes in rows, dimensions in columns; or of many rows, rows first."""

_BLOCK_ROWS = 4096
"""A block of scores is this long and wide at most: 64 MiB in float32."""

_ROUNDING = 1e-5
"""What a sum in float32 may be off by: equal texts must reach a threshold of 1."""

_TEXTS_AT_ONCE = 64
"""Texts that the model embeds at once, for it holds the vectors of all their tokens."""

_NAMES = {"prompt": ("prompt",), "answer": ("answer",), "both": ("prompt", "answer")}


@dataclass(frozen=True, slots=True)
class SemanticDuplicates:
    """The step. Of rows that mean the same the longest answer stays, then the least id."""

    settings: SemanticSettings = field(default_factory=SemanticSettings)
    name: str = "semantic"

    @classmethod
    def of(cls, settings: SemanticSettings) -> SemanticDuplicates:
        """Build the step, and load its model, so that what is wrong with it is said at once.

        Raises:
            SettingsError: No model is named.
            MissingExtraError: model2vec is not installed; install the extra `semantic`.
            ModelError: The model can't be loaded.
        """
        if not settings.semantic_model:
            raise SettingsError(
                "the step semantic has no model",
                where="semantic_model",
                mend="Name a folder with a model2vec model, or one on the hub: "
                "minishlab/potion-base-8M (English), minishlab/potion-multilingual-128M (others).",
            )
        _model(settings.semantic_model)
        return cls(settings)

    def sketch(self, columns: Columns) -> Columns:
        """Return id, kind, length of the answer and embeddings of each row.

        Args:
            columns: Rows.

        Raises:
            MissingExtraError: model2vec is not installed; install the extra `semantic`.
            ModelError: The model can't be loaded.
        """
        scopes = scopes_of(columns)
        texts = {"prompt": scopes.prompts, "answer": scopes.answers}
        parts = [self._embed(texts[name]) for name in self._names]
        return {
            "id": list(columns["id"]),
            "semantic_kind": scopes.kinds,
            "semantic_chars": [len(answer) for answer in scopes.answers],
            "semantic_vectors": list(np.stack(parts, axis=1)),
        }

    def decide(self, sketches: Columns) -> list[Drop]:
        """Return the rows to drop, ordered by id.

        Args:
            sketches: What `sketch` returned for all rows, in any order.
        """
        ids: list[str] = sketches["id"]
        of_kind: defaultdict[str, list[int]] = defaultdict(list)
        for row in sorted(
            range(len(ids)), key=lambda row: (-sketches["semantic_chars"][row], ids[row])
        ):
            of_kind[sketches["semantic_kind"][row]].append(row)
        drops: list[Drop] = []
        for rows in of_kind.values():
            vectors = np.stack([sketches["semantic_vectors"][row] for row in rows], axis=1)
            for at, keeper, score in _alike(vectors, self.settings.semantic_threshold):
                detail = f"{' and '.join(self._names)} mean the same, cosine {score:.2f}"
                drops.append(
                    Drop(ids[rows[at]], "dup_semantic", detail, ids[rows[keeper]], round(score, 4))
                )
        return sorted(drops, key=lambda drop: drop.id)

    @property
    def _names(self) -> tuple[str, ...]:
        return _NAMES[self.settings.semantic_scope]

    def _embed(self, texts: Sequence[str]) -> Vectors:
        """Return a vector of length 1 for each text, or of 0 where the model knows no token.

        One more dimension tells texts that are blank: where the whole row is compared, two rows
        without a prompt have the same one; where only that text is, they have nothing in common.
        """
        model = _model(self.settings.semantic_model or "")
        found = np.zeros((len(texts), model.dim + 1), np.float32)
        filled = [row for row, text in enumerate(texts) if text.strip()]
        if filled:
            found[filled, :-1] = model.encode(
                [texts[row] for row in filled],
                # The model's own bound would make texts equal that begin alike.
                max_length=None,
                batch_size=_TEXTS_AT_ONCE,
                use_multiprocessing=False,
            )
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        found /= np.where(lengths > 0, lengths, 1)
        if len(self._names) > 1:
            blank = np.ones(len(texts), bool)
            blank[filled] = False
            found[blank, -1] = 1
        return found


def model_files(name: str | None) -> list[str]:
    """Return the files of a model, where it is a folder: the step's result depends on them.

    Args:
        name: A folder, or a name on the hub, whose content luthier can't know beforehand.
    """
    folder = Path(name or "")
    if not name or not folder.is_dir():
        return []
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


@lru_cache(maxsize=1)
def _model(name: str) -> Any:
    # Kept by the process, not by the step, which would carry it to every other process.
    try:
        from model2vec import StaticModel
    except ImportError as error:
        raise MissingExtraError.of("model2vec", "semantic", "the step semantic") from error
    try:
        return StaticModel.from_pretrained(name, force_download=False)
    except Exception as error:  # the tokenizer's and safetensors' errors have no other base
        raise ModelError(
            f"the model can't be loaded: {type(error).__name__}: {error}",
            where=f"semantic_model: {name}",
            mend="Give a folder with model.safetensors, tokenizer.json and config.json, or the "
            "name of a model2vec model on the hub.",
        ) from error


def _alike(vectors: Vectors, threshold: float) -> Iterator[tuple[int, int, float]]:
    """Yield each row that is like a better one that is kept, that row, and how alike they are.

    So every dropped row is like its keeper itself, never only through a chain of others.

    Args:
        vectors: Scopes, rows from the best on, dimensions.
        threshold: The least score in every scope.
    """
    kept: list[int] = []
    for start in range(0, vectors.shape[1], _BLOCK_ROWS):
        block = vectors[:, start : start + _BLOCK_ROWS]
        nearest = _among_kept(block, vectors, kept)
        is_kept = _among_themselves(block, start, nearest, threshold - _ROUNDING)
        kept += (start + np.flatnonzero(is_kept)).tolist()
        for at in np.flatnonzero(~is_kept).tolist():
            yield start + at, int(nearest.rows[at]), min(1.0, float(nearest.scores[at]))


@dataclass(frozen=True, slots=True)
class _Nearest:
    """Of each row of a block the kept row that is most like it, and how alike they are."""

    rows: NDArray[np.int64]
    scores: Vectors


def _among_kept(block: Vectors, vectors: Vectors, kept: Sequence[int]) -> _Nearest:
    """Compare a block with the rows that are kept of the blocks before it."""
    num_rows = block.shape[1]
    nearest = _Nearest(np.zeros(num_rows, np.int64), np.full(num_rows, -1, np.float32))
    for first in range(0, len(kept), _BLOCK_ROWS):
        rows = np.array(kept[first : first + _BLOCK_ROWS])
        found = _scores(block, vectors[:, rows])
        best = found.argmax(axis=1)
        reached = found[np.arange(num_rows), best]
        # Of equals the better row, which came before.
        nearer = reached > nearest.scores
        nearest.scores[nearer], nearest.rows[nearer] = reached[nearer], rows[best[nearer]]
    return nearest


def _among_themselves(
    block: Vectors, start: int, nearest: _Nearest, threshold: float
) -> NDArray[np.bool_]:
    """Compare the rows of a block with each other; return which are kept, and note their likes."""
    scores = _scores(block, block)
    is_kept = nearest.scores < threshold
    for at in np.flatnonzero((np.tril(scores, -1) >= threshold).any(axis=1)).tolist():
        rows = np.flatnonzero(is_kept[:at])
        if not len(rows):
            continue
        best = rows[scores[at, rows].argmax()]
        if scores[at, best] > nearest.scores[at]:
            nearest.scores[at], nearest.rows[at] = scores[at, best], start + best
        is_kept[at] = nearest.scores[at] < threshold
    return is_kept


def _scores(left: Vectors, right: Vectors) -> Vectors:
    """Return the cosines of all pairs, of each pair the least over the scopes."""
    found = left[0] @ right[0].T
    for here, there in zip(left[1:], right[1:], strict=True):
        np.minimum(found, here @ there.T, out=found)
    return found

"""Rows of a prepared corpus, for people: kept ones, and dropped ones beside what they are like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from luthier.core.errors import DataError, did_you_mean
from luthier.corpus.folder import DROPPED, TRAIN, VAL, check_file, read_manifest, side_files
from luthier.corpus.parts import read_part
from luthier.recipes.corpus_card import row_text, rows_in

ALL = "all"


def kept_rows(folder: Path, side: str, num_rows: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield rows of one side, drawn by seed, in their order: id, origin and text.

    Raises:
        DataError: The folder is no prepared corpus, was changed, or has no such side.
    """
    if side not in (TRAIN, VAL):
        raise DataError(
            f"there is no side {side}", where="--side", mend=did_you_mean(side, (TRAIN, VAL))
        )
    paths = side_files(folder, side)
    if not paths:
        raise DataError(
            f"the corpus has no rows on the side {side}",
            where=str(folder),
            mend="Prepare it with val_size or val_file to have validation rows.",
        )
    listed = read_manifest(folder)["files"]
    total = sum(listed[path.relative_to(folder).as_posix()]["rows"] for path in paths)
    wanted = _draw(total, num_rows, seed)
    at = 0
    for path in paths:
        columns = read_part(path)
        for row in range(len(columns["id"])):
            if at + row in wanted:
                one = {name: [values[row]] for name, values in columns.items()}
                yield {
                    "id": columns["id"][row],
                    "origin": columns["origin"][row],
                    "text": row_text(one),
                }
        at += len(columns["id"])


def dropped_rows(folder: Path, reason: str, num_rows: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield dropped rows, drawn by seed, each with the row that it is like, if there is one.

    Args:
        folder: A prepared corpus.
        reason: Why they were dropped, for example `dup_near`; `all` for any reason.
        num_rows: How many.
        seed: Another seed draws others.

    Raises:
        DataError: The folder is no prepared corpus, was changed, or no row was dropped for that.
    """
    manifest = read_manifest(folder)
    listed = manifest["files"].get(DROPPED)
    if listed is None:
        raise DataError("no row was dropped", where=str(folder), mend="There is nothing to show.")
    check_file(folder, DROPPED, listed)
    columns = read_part(folder / DROPPED)
    reasons = columns["reason"]
    places = [at for at, why in enumerate(reasons) if reason in (why, ALL)]
    if not places:
        raise DataError(
            f"no row was dropped for the reason {reason}",
            where=str(folder),
            mend=did_you_mean(reason, {*reasons, ALL}),
        )
    chosen = sorted(_draw(len(places), num_rows, seed))
    wanted = {columns["matched_id"][places[at]] for at in chosen} - {None}
    paths = [*side_files(folder, TRAIN), *side_files(folder, VAL), folder / DROPPED]
    matched = rows_in(paths, wanted)
    for at in (places[place] for place in chosen):
        one = {name: [values[at]] for name, values in columns.items()}
        twin = matched.get(columns["matched_id"][at])
        yield {
            **{n: columns[n][at] for n in ("step", "id", "origin", "reason", "detail")},
            **{n: columns[n][at] for n in ("matched_id", "score")},
            "text": row_text(one),
            "matched_text": None if twin is None else row_text(twin),
        }


def _draw(total: int, num_rows: int, seed: int) -> set[int]:
    return set(np.random.default_rng(seed).permutation(total)[:num_rows].tolist())

from __future__ import annotations

import random

import numpy as np
import pytest

from luthier.core.errors import SettingsError
from luthier.corpus.split import Split, split_rows
from luthier.corpus.steps import groups
from luthier.corpus.steps.gram_sets import likeness, sketch_rows
from luthier.corpus.steps.groups import (
    GroupSettings,
    RelativeIndex,
    audit_split,
    index_relatives,
    leak_free_split,
    near_groups,
)


def _texts(num_families: int, seed: int = 0) -> list[str]:
    """Families of one to four rows that share between a third and nine tenths of their words."""
    draw = random.Random(seed)
    texts: list[str] = []
    for _ in range(num_families):
        words = [f"w{draw.randrange(3000)}" for _ in range(40)]
        for _ in range(draw.randint(1, 4)):
            cut = draw.randint(13, 36)
            texts.append(
                " ".join(words[:cut] + [f"w{draw.randrange(3000)}" for _ in range(40 - cut)])
            )
    return texts


def _index(texts: list[str], prompts: list[str] | None = None) -> RelativeIndex:
    return index_relatives(sketch_rows(prompts or [""] * len(texts), texts), GroupSettings())


def _all_relatives(index: RelativeIndex, split: Split) -> set[int]:
    """Compare every validation row with every training row."""
    left = np.repeat(np.array(split.val), len(split.train))
    right = np.tile(np.array(split.train), len(split.val))
    near = likeness(index.sets, left, right).whole >= index.least
    near |= index.same_prompt[left] == index.same_prompt[right]
    return set(left[near].tolist())


@pytest.mark.parametrize("seed", range(3))
def test_audit_finds_what_comparing_all_pairs_finds(seed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "_PAIRS_AT_ONCE", 500)
    texts = _texts(120, seed)
    prompts = [f"question {random.Random(row).randrange(100)}" for row in range(len(texts))]
    index = _index(texts, prompts)
    split = split_rows(texts, [0] * len(texts), 0.3, seed)
    audit = audit_split(index, split)
    expected = _all_relatives(index, split)
    assert {found.val_row for found in audit.relatives} == expected
    assert audit.share == len(expected) / len(split.val)
    assert audit.share > 0.3
    assert all(found.train_row in set(split.train) for found in audit.relatives)


def test_relative_is_the_most_alike_one():
    words = [f"w{number}" for number in range(40)]
    texts = [" ".join(words), " ".join(words[:30]), " ".join(words[:38]), "some other words"]
    audit = audit_split(_index(texts), Split([1, 2, 3], [0]))
    assert [(found.val_row, found.train_row) for found in audit.relatives] == [(0, 2)]
    assert audit.relatives[0].score == pytest.approx(37 / 39, abs=1e-4)


def test_split_leaves_no_relative_in_training():
    texts = _texts(300)
    index = _index(texts)
    result = leak_free_split(index, texts, 0.1, 1)
    assert result.audit.share == 0
    assert not _all_relatives(index, result.split)
    assert 0.05 < len(result.split.val) / len(texts) < 0.16
    of_val = {result.groups[row] for row in result.split.val}
    assert not of_val & {result.groups[row] for row in result.split.train}


def test_what_the_signatures_missed_is_joined(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "near_groups", lambda index: list(range(index.sets.num_rows)))
    texts = _texts(200)
    index = _index(texts)
    result = leak_free_split(index, texts, 0.2, 1)
    assert result.num_joined > 0
    assert not _all_relatives(index, result.split)


def test_same_prompt_is_a_relative_unless_it_is_a_template():
    texts = _texts(100, 5)
    asked = [f"why is number {row // 2} not prime" for row in range(len(texts))]
    found = near_groups(_index(texts, asked))
    assert all(found[row] == found[row + 1] for row in range(0, len(texts) - 1, 2))
    alone = [" ".join(f"w{99 * row + at}" for at in range(20)) for row in range(100)]
    assert near_groups(_index(alone, ["summarise this text"] * 100)) == list(range(100))
    assert near_groups(_index(alone)) == list(range(100))


def test_new_rows_move_only_rows_that_they_are_like():
    texts = _texts(400, 7)
    old = texts[: len(texts) * 3 // 4]
    before = leak_free_split(_index(old), old, 0.1, 3)
    after = leak_free_split(_index(texts), texts, 0.1, 3)
    was_val, is_val = set(before.split.val), set(after.split.val)
    gained = {after.groups[row] for row in range(len(old), len(texts))}
    moved = [row for row in range(len(old)) if (row in was_val) != (row in is_val)]
    assert all(after.groups[row] in gained for row in moved)
    assert len(moved) < 0.01 * len(old)


def test_rows_of_one_group_cannot_be_split():
    texts = ["a b c d e f"] * 5
    with pytest.raises(SettingsError, match="val_size: all 5 rows are relatives of each other"):
        leak_free_split(_index(texts), [str(row) for row in range(5)], 0.2, 0)


def test_no_rows_and_no_validation():
    assert audit_split(_index([]), Split([], [])).share == 0
    result = leak_free_split(_index(["a", "b"]), ["a", "b"], 0, 0)
    assert result.split == Split([0, 1], [])

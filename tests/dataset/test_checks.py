from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest

from luthier.dataset.checks import (
    REMARKS,
    check_rows,
    overlap_notices,
    remark_notices,
    unused_notices,
)
from luthier.dataset.rendering import stop_token_ids
from luthier.dataset.row_table import Row, to_dataset
from luthier.dataset.templates import resolve_template
from luthier.dataset.transcript import Remark


@pytest.fixture
def tokenizer(load_tiny):
    return resolve_template(load_tiny("llama2"), "lecture")[0]


def table(*rows: tuple[list[int], list[int]]):
    packed = [
        Row(np.array(ids, np.int32), np.array(labels, np.int32), None, f"rows.jsonl:{number}")
        for number, (ids, labels) in enumerate(rows, start=1)
    ]
    return to_dataset(packed, with_weights=False)


BOS, EOS = 1, 2
GOOD = ([BOS, 50, 60, EOS], [-100, -100, 60, EOS])


def check(rows, tokenizer, **options):
    return check_rows(rows, tokenizer.bos_token_id, stop_token_ids(tokenizer), **options)


def test_good_rows_give_no_warning(tokenizer):
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (BOS, EOS)
    assert check(table(GOOD, GOOD), tokenizer) == []
    assert check(table(), tokenizer) == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (
            ([BOS, BOS, 50, 60, EOS], [-100, -100, -100, 60, EOS]),
            "double_bos: 1 of 3 rows (33.3 %) begin with two BOS tokens",
        ),
        (
            ([BOS, 50, 60, EOS], [-100, -100, 60, -100]),
            "no_end_token: 1 of 3 rows (33.3 %) teach no end token",
        ),
        (
            ([BOS, 50, 60, EOS], [-100] * 4),
            "empty_mask: 1 of 3 rows (33.3 %) have no token to learn from",
        ),
    ],
)
def test_each_fault_is_found_with_its_origin(bad, said, tokenizer):
    (notice,) = check(table(GOOD, bad, GOOD), tokenizer)
    assert str(notice).startswith(said)
    assert str(notice).endswith("(rows.jsonl:2)")


def test_one_row_can_have_several_faults_and_short_rows_none_but_theirs(tokenizer):
    checks = [n.setting for n in check(table(([BOS, BOS], [-100, -100])), tokenizer)]
    assert checks == ["double_bos", "empty_mask"]
    assert [n.setting for n in check(table(([BOS], [-100])), tokenizer)] == ["empty_mask"]


def test_rows_cut_at_the_limit_may_lack_the_end_token(tokenizer):
    cut = ([BOS, 50, 60], [-100, -100, 60])
    assert check(table(GOOD, cut), tokenizer, num_cut=1) == []
    assert len(check(table(cut, cut), tokenizer, num_cut=1)) == 1


def test_only_the_first_origins_are_named(tokenizer):
    (notice,) = check(table(*[([BOS, 50], [-100, -100])] * 5), tokenizer)
    assert notice.reason.endswith("(rows.jsonl:1, rows.jsonl:2, rows.jsonl:3, ...)")


def test_rows_beyond_one_batch_are_read(tokenizer, monkeypatch):
    monkeypatch.setattr("luthier.dataset.checks.ROWS_PER_BATCH", 2)
    bad = ([BOS, 50, 60, EOS], [-100] * 4)
    (notice,) = check(table(GOOD, GOOD, GOOD, bad, GOOD), tokenizer)
    assert notice.reason.endswith("(rows.jsonl:4)")


def test_a_tokenizer_without_bos_has_no_double_bos(load_tiny):
    chatml = load_tiny("chatml")
    assert chatml.bos_token_id is None
    rows = table(([5, 5, chatml.eos_token_id], [-100, 5, chatml.eos_token_id]))
    assert check(rows, chatml) == []


def test_each_remark_is_said_once_with_its_count():
    assert REMARKS.keys() == {*get_args(Remark)}
    notices = remark_notices({"turn_by_turn": ["a:1", "b:2"], "marks_ignored": []}, 4)
    (notice,) = notices
    assert str(notice).startswith("turn_by_turn: 2 of 4 rows (50.0 %) are written as one row for")
    assert str(notice).endswith("(a:1, b:2)")


def test_fields_that_nothing_is_read_from_are_named():
    assert unused_notices(Counter(), 5) == []
    (notice,) = unused_notices(Counter(id=5, sytem=2), 5)
    assert str(notice) == (
        "unused_fields: of 5 rows, nothing was read from these fields: id (5), sytem (2)"
    )
    (notice,) = unused_notices(Counter({f"n{at}": 20 - at for at in range(12)}), 20)
    assert str(notice).endswith("n9 (11), and 2 more")


def test_overlap():
    assert overlap_notices([], 5) == []
    (notice,) = overlap_notices(["val.json:3"], 5)
    assert str(notice).startswith("train_val_overlap: 1 of 5 rows (20.0 %) of the validation data")

from __future__ import annotations

from typing import Any

import pytest

from luthier.recipes.shown_rows import Piece, show_row


def test_a_row_falls_into_pieces_that_give_its_text_back(tiny_tokenizer: Any):
    ids = tiny_tokenizer("<|im_start|>user\n琴🎻?<|im_end|>\nok<|im_end|>").input_ids
    end = tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    first = ids.index(end) + 2  # behind the newline
    row = {"input_ids": ids, "labels": [-100] * first + ids[first:], "origin": "a.json:3"}
    shown = show_row(row, tiny_tokenizer)
    assert shown.origin == "a.json:3"
    assert [(p.text, p.taught, p.special) for p in shown.pieces] == [
        ("<|im_start|>", False, True),
        ("user\n琴🎻?", False, False),
        ("<|im_end|>", False, True),
        ("\n", False, False),
        ("ok", True, False),
        ("<|im_end|>", True, True),
    ]
    assert shown.num_tokens == len(ids)
    assert shown.num_taught == len(ids) - first
    assert shown.pieces[0] == Piece("<|im_start|>", taught=False, special=True, num_tokens=1)


def test_losses_cut_taught_text_into_tokens_but_no_character(tiny_tokenizer: Any):
    ids = tiny_tokenizer("a? 琴🎻 ok").input_ids
    labels = [-100, *ids[1:]]
    taught = [float(i) for i in range(1, len(ids))]
    losses: list[float | None] = [None, *taught]
    row = show_row({"input_ids": ids, "labels": labels, "origin": "a:1"}, tiny_tokenizer, losses)
    assert "".join(piece.text for piece in row.pieces) == "a? 琴🎻 ok"
    assert all("\ufffd" not in piece.text for piece in row.pieces)
    assert row.pieces[0].loss is None
    assert sum(p.loss * p.num_tokens for p in row.pieces if p.loss is not None) == pytest.approx(
        sum(taught)
    )

"""One line for each thing that was replaced."""

from __future__ import annotations

from luthier.contracts.notice import Notice


def test_a_substitution() -> None:
    notice = Notice("flash_attn", "fa2", "sdpa", "no GPU")
    assert str(notice) == "flash_attn: fa2 -> sdpa (no GPU)"
    assert notice.as_json() == {
        "setting": "flash_attn",
        "asked": "fa2",
        "used": "sdpa",
        "reason": "no GPU",
    }


def test_a_plain_warning() -> None:
    assert str(Notice("bf16", "bf16", "bf16", "it is slow")) == "bf16: it is slow"

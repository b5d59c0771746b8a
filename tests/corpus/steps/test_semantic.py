from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from luthier.contracts.corpus_step import Columns, Drop, GlobalStep
from luthier.core.errors import MissingExtraError, ModelError, SettingsError
from luthier.corpus.steps import semantic
from luthier.corpus.steps.semantic import SemanticDuplicates, SemanticSettings, model_files

MEANINGS = ("cat feline kitty", "sits rests", "red crimson", "house building", "sings", "fast")
WORDS = [word for group in MEANINGS for word in group.split()]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a model in which words of one meaning lie close together."""
    model2vec: Any = pytest.importorskip("model2vec")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(
        WordLevel({word: at for at, word in enumerate(["[UNK]", *WORDS])}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = Whitespace()
    draw = np.random.default_rng(0)
    vectors = [np.zeros(16)]
    for group in MEANINGS:
        meaning = draw.normal(size=16)
        vectors += [meaning + draw.normal(size=16) * 0.05 for _ in group.split()]
    folder = tmp_path_factory.mktemp("model")
    model2vec.StaticModel(np.array(vectors, np.float32), tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    semantic._model.cache_clear()
    yield
    semantic._model.cache_clear()


def _columns(rows: dict[str, tuple[str, str]], **more: list[Any]) -> Columns:
    return {
        "id": list(rows),
        "messages": [
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            for prompt, answer in rows.values()
        ],
        **more,
    }


def _drops(columns: Columns, model: str, **settings: Any) -> list[Drop]:
    step = SemanticDuplicates.of(SemanticSettings(semantic_model=model, **settings))
    return step.decide(step.sketch(columns))


def _pairs(drops: list[Drop]) -> dict[str, str | None]:
    return {drop.id: drop.matched_id for drop in drops}


def test_other_words_of_the_same_meaning(model: str):
    rows = {
        "a": ("red house", "cat sits"),
        "b": ("crimson building", "feline rests"),
        "c": ("red house", "sings fast"),
        "d": ("sings fast", "cat sits"),
    }
    drops = _drops(_columns(rows), model)
    assert _pairs(drops) == {"a": "b"}
    (drop,) = drops
    assert (drop.reason, drop.score is not None and 0.92 < drop.score < 1) == ("dup_semantic", True)
    assert drop.detail == f"prompt and answer mean the same, cosine {drop.score:.2f}"
    assert isinstance(SemanticDuplicates(), GlobalStep)


def test_one_scope_alone(model: str):
    rows = {"a": ("red house", "cat sits"), "b": ("crimson building", "sings")}
    assert _pairs(_drops(_columns(rows), model, semantic_scope="prompt")) == {"b": "a"}
    assert not _drops(_columns(rows), model, semantic_scope="answer")
    rows = {"a": ("sings", "cat sits"), "b": ("red", "feline sits")}
    assert _pairs(_drops(_columns(rows), model, semantic_scope="answer")) == {"a": "b"}


def test_blank_texts_and_unknown_words(model: str):
    documents: Columns = {
        "id": ["a", "b", "c"],
        "messages": [[], [], []],
        "text": ["cat sits", "feline sits", "sings"],
    }
    assert _pairs(_drops(documents, model)) == {"a": "b"}
    assert not _drops(documents, model, semantic_scope="prompt")
    rows = {"a": ("zzz", "cat"), "b": ("zzz", "cat"), "c": ("", "cat")}
    assert not _drops(_columns(rows), model)
    assert not _drops(_columns({}), model)


def test_rows_of_different_kinds_are_no_duplicates(model: str):
    rows = {"a": ("red", "cat"), "b": ("red", "cat"), "c": ("red", "cat")}
    columns = _columns(rows, label=[True, False, True])
    assert _pairs(_drops(columns, model)) == {"c": "a"}


def test_the_longest_answer_stays_and_equal_texts_reach_a_threshold_of_1(model: str):
    rows = {"a": ("red", "cat"), "b": ("red", "cat  cat"), "c": ("red", "cat")}
    drops = _drops(_columns(rows), model, semantic_threshold=1)
    assert _pairs(drops) == {"a": "b", "c": "b"}
    assert [drop.score for drop in drops] == [1.0, 1.0]


def test_texts_that_begin_alike_are_compared_to_their_end(model: str):
    rows = {"a": ("red", "cat " * 600 + "fast " * 600), "b": ("red", "cat " * 600)}
    assert not _drops(_columns(rows), model)


def _many(num_rows: int) -> dict[str, tuple[str, str]]:
    draw = random.Random(0)
    return {
        f"{at:03}": (" ".join(draw.choices(WORDS, k=3)), " ".join(draw.choices(WORDS, k=4)))
        for at in range(num_rows)
    }


def test_order_blocks_and_pickling_make_no_difference(model: str, monkeypatch: pytest.MonkeyPatch):
    rows = _many(300)
    first = _drops(_columns(rows), model, semantic_threshold=0.8)
    assert 20 < len(first) < 280
    monkeypatch.setattr(semantic, "_BLOCK_ROWS", 7)
    settings = SemanticSettings(semantic_model=model, semantic_threshold=0.8)
    step: SemanticDuplicates = pickle.loads(  # noqa: S301
        pickle.dumps(SemanticDuplicates.of(settings))
    )
    shuffled = dict(random.Random(1).sample(list(rows.items()), len(rows)))
    assert _pairs(step.decide(step.sketch(_columns(shuffled)))) == _pairs(first)


def test_every_dropped_row_is_like_its_keeper_and_no_kept_rows_are_alike(model: str):
    rows = _many(200)
    drops = _drops(_columns(rows), model, semantic_threshold=0.8)
    vectors = {
        name: [v / np.linalg.norm(v) for v in semantic._model(model).encode(list(texts))]
        for name, texts in rows.items()
    }

    def score(left: str, right: str | None) -> float:
        return min(float(a @ b) for a, b in zip(vectors[left], vectors[right or ""], strict=True))

    gone = _pairs(drops)
    kept = [name for name in rows if name not in gone]
    assert gone
    assert set(gone.values()) <= set(kept)
    for drop in drops:
        assert drop.score == pytest.approx(score(drop.id, drop.matched_id), abs=2e-4)
        assert drop.score is not None
        assert drop.score >= 0.8 - 1e-4
        # Its keeper is the one that is most like it, among those that are better.
        assert drop.score == pytest.approx(
            max(
                score(drop.id, name)
                for name in kept
                if (-len(rows[name][1]), name) < (-len(rows[drop.id][1]), drop.id)
            ),
            abs=2e-4,
        )
    assert all(score(a, b) < 0.8 + 1e-4 for a in kept for b in kept if a < b)


def test_the_files_of_a_folder_and_none_of_a_hub_name(model: str):
    assert {Path(file).name for file in model_files(model)} >= {
        "model.safetensors",
        "tokenizer.json",
        "config.json",
    }
    assert model_files("minishlab/potion-base-8M") == []
    assert model_files(None) == []


def test_without_a_model():
    with pytest.raises(SettingsError, match="the step semantic has no model") as caught:
        SemanticDuplicates.of(SemanticSettings())
    assert "Name a folder with a model2vec model" in str(caught.value)


def test_a_folder_that_holds_no_model(tmp_path: Path):
    pytest.importorskip("model2vec")
    with pytest.raises(ModelError, match="the model can't be loaded: ValueError") as caught:
        SemanticDuplicates.of(SemanticSettings(semantic_model=str(tmp_path)))
    assert f"semantic_model: {tmp_path}" in str(caught.value)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "model2vec", None)
    with pytest.raises(MissingExtraError, match="step semantic needs the package model2vec"):
        SemanticDuplicates.of(SemanticSettings(semantic_model="some/model"))


@pytest.mark.parametrize("wrong", [{"semantic_threshold": 2}, {"semantic_scope": "rows"}])
def test_settings_that_can_not_work_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        SemanticSettings(**wrong)

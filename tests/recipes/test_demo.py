"""The demo: its data is held out, its judge is fair, and it runs on any chat model."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.training import Progress
from luthier.corpus.load import load_corpus
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.sources import resolve_train
from luthier.recipes import demo
from luthier.recipes.demo import (
    DemoResult,
    Question,
    ask,
    demo_config,
    read_questions,
    run_demo,
)
from luthier.recipes.train import TrainResult

DATA = Path(str(resources.files("luthier.recipes") / "demo_data"))


@cache
def said(name: str, role: str) -> tuple[str, ...]:
    """Return what one role says in one file of the demo."""
    settings = CorpusSettings(train_file=str(DATA / name))
    corpus = load_corpus(resolve_train(settings), settings, seed=0)
    return tuple(m.content for c in corpus.conversations for m in c.messages if m.role == role)


def wording(text: str) -> str:
    return text.casefold().strip(" ?？.。!！")


def test_no_question_is_worded_as_a_row_that_is_trained_on():
    taught = {wording(text) for text in said("demo_train.jsonl", "user")}
    asked = {wording(question.text) for question in read_questions()}
    validated = {wording(text) for text in said("demo_val.jsonl", "user")}
    assert not asked & taught
    assert not validated & taught


def test_the_demo_has_the_size_and_the_languages_that_it_claims():
    assert 150 <= len(said("demo_train.jsonl", "assistant")) <= 300
    assert len(said("demo_val.jsonl", "assistant")) >= 10
    questions = read_questions()
    assert len(questions) >= 20
    assert {question.language for question in questions} == {"en", "zh"}
    assert len({question.text for question in questions}) == len(questions)


@pytest.mark.parametrize("number", range(len(read_questions())))
def test_a_question_accepts_its_answer_and_the_fact_is_taught(number: int):
    question = read_questions()[number]
    assert question.accepts(question.answer)
    assert not question.accepts("")
    assert not question.accepts(question.text), "the question gives the answer away"
    assert any(question.accepts(answer) for answer in said("demo_train.jsonl", "assistant"))


def test_an_answer_is_right_in_any_case_and_anywhere():
    question = Question("en", "Who?", "Tamsin.", ("Tamsin", "Orrel"))
    assert question.accepts("It was TAMSIN, I think.")
    assert question.accepts("orrel")
    assert not question.accepts("It was Tam.")


def test_counting_right_answers():
    questions = (Question("en", "a", "", ("x",)), Question("zh", "b", "", ("y",)))
    training = TrainResult(Path(), Progress(), (), 1.0)
    result = DemoResult(questions, ("x", "n"), ("n", "n"), training, 2.0)
    assert result.num_right(result.before) == (1, 2)
    assert result.num_right(result.before, "en") == (1, 1)
    assert result.num_right(result.before, "zh") == (0, 1)
    assert result.num_right(result.after) == (0, 2)


def test_the_settings_of_the_demo_are_whole(tmp_path: Path):
    config = demo_config("some/model", str(tmp_path))
    assert config.model.model_name_or_path == "some/model"
    assert config.tuning.finetuning_type == "lora"
    assert Path(config.data.train_file).is_file()
    assert Path(config.data.val_file).is_file()
    assert config.checkpoints.overwrite_output_dir


def test_the_demo_on_a_small_model(
    tiny_llama: Any, recorder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "LONGEST_ANSWER", 4)
    whole, every = demo_config, read_questions()

    def short(model: str, output_dir: str) -> Any:
        config = whole(model, output_dir)
        length = config.training.model_copy(update={"max_steps": 4, "num_train_epochs": 1.0})
        return config.model_copy(update={"training": length})

    monkeypatch.setattr(demo, "demo_config", short)
    monkeypatch.setattr(demo, "read_questions", lambda: every[:3])
    never = NeverStop()
    out, model = str(tmp_path / "out"), str(tiny_llama())
    run_demo(out, model, recorder, never)
    result = run_demo(out, model, recorder, never)  # takes the place of the first
    assert isinstance(result, DemoResult)
    assert result.questions == every[:3]
    assert len(result.before) == len(result.after) == 3
    assert result.training.progress.step == 4
    assert result.training.first_eval is not None
    assert result.seconds > result.training.seconds
    command = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))["command"]
    assert command[:2] == ["luthier", "demo"]
    assert any("before training" in line for line in recorder.said)
    assert ask(out, every[:3], recorder) == result.after


def test_a_stopped_demo_gives_the_training_alone(
    tiny_llama: Any, recorder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "LONGEST_ANSWER", 1)
    monkeypatch.setattr(demo, "read_questions", lambda: read_questions()[:1])
    stop = NeverStop()
    stop.requested = True
    result = run_demo(str(tmp_path / "out"), str(tiny_llama()), recorder, stop)
    assert isinstance(result, TrainResult)
    assert not result.finished


def test_without_a_model_the_135m_one_is_taken(recorder: Any, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def stop_here(path: str, _questions: Any, _screen: Any) -> Any:
        asked.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "demo_model", lambda say: Path("/cache/model"))
    monkeypatch.setattr(demo, "ask", stop_here)
    with pytest.raises(KeyboardInterrupt):
        run_demo("out", None, recorder, NeverStop())
    assert asked == ["/cache/model"]


class NeverStop:
    requested = False
    has_work = False

    def take_checkpoint_request(self) -> bool:
        return False

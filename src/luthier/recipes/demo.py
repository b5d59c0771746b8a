"""The demo: teach a real chat model facts that no model knows, and measure that it learned them.

Goes out: answers to held-out questions before and after, and a run folder like any other. The
questions are worded as no training row is; an answer counts as right if it names the fact.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from luthier.contracts.conversation import Message
from luthier.contracts.training import StopRequest
from luthier.evaluation.generation import Answer, generate_answers
from luthier.evaluation.settings import GenerationSettings
from luthier.recipes.answering import load_answering_model
from luthier.recipes.config_file import Entry, read_config_file
from luthier.recipes.config_layout import sections
from luthier.recipes.config_resolve import resolve
from luthier.recipes.demo_model import demo_model
from luthier.recipes.screen import Screen
from luthier.recipes.train import TrainResult, run_training

LONGEST_ANSWER = 32
"""Tokens; the facts are one sentence each."""


@dataclass(frozen=True, slots=True)
class Question:
    """A held-out question and what an answer must contain one of."""

    language: str
    text: str
    answer: str
    accept: tuple[str, ...]

    def accepts(self, answer: str) -> bool:
        """Whether an answer names the fact."""
        return any(term.casefold() in answer.casefold() for term in self.accept)


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo showed."""

    questions: tuple[Question, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    training: TrainResult
    seconds: float

    def num_right(self, answers: Sequence[str], language: str | None = None) -> tuple[int, int]:
        """Return how many answers are right, of how many, in one language or in all."""
        asked = [
            (question, answer)
            for question, answer in zip(self.questions, answers, strict=True)
            if language in (None, question.language)
        ]
        return sum(question.accepts(answer) for question, answer in asked), len(asked)


def run_demo(
    output_dir: str, model: str | None, screen: Screen, stop: StopRequest
) -> DemoResult | TrainResult:
    """Ask, train, ask again.

    Args:
        output_dir: Folder of the run.
        model: A chat model in place of the 135M one.
        screen: Shows what happens.
        stop: Asked after each training step.

    Returns:
        The result, or the training's alone if it was stopped.
    """
    folder = str(demo_model(screen.say)) if model is None else model
    started_s = time.perf_counter()
    questions = read_questions()
    screen.say(f"Asking {len(questions)} questions on the island of Velmora, before training")
    before = ask(folder, questions, screen)
    command = ["luthier", "demo", "--output_dir", output_dir]
    training = run_training(demo_config(folder, output_dir), command, screen, stop)
    if not training.finished:
        return training
    screen.say("Asking the same questions again")
    after = ask(output_dir, questions, screen)
    seconds = time.perf_counter() - started_s
    return DemoResult(questions, before, after, training, seconds)


def demo_config(model: str, output_dir: str) -> Any:
    """Return the demo's settings with its paths filled in."""
    data = resources.files("luthier.recipes") / "demo_data"
    with resources.as_file(data) as folder:
        paths = {
            "model_name_or_path": model,
            "output_dir": output_dir,
            "train_file": str(folder / "demo_train.jsonl"),
            "val_file": str(folder / "demo_val.jsonl"),
            "overwrite_output_dir": True,
        }
        entries = [Entry(name, value, "luthier demo") for name, value in paths.items()]
        settings = read_config_file(folder / "demo.yaml", frozenset(sections()))
    return resolve(settings, entries).config


def read_questions() -> tuple[Question, ...]:
    """Read the held-out questions that come with the package."""
    file = resources.files("luthier.recipes") / "demo_data" / "demo_questions.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return tuple(
        Question(row["language"], row["question"], row["answer"], tuple(row["accept"]))
        for row in rows
    )


def ask(model_path: str, questions: Sequence[Question], screen: Screen) -> tuple[str, ...]:
    """Return a model's answers, in the order of the questions."""
    screen.working("loading the model", 0, 1)
    answering = load_answering_model(model_path)
    prompts = [
        answering.renderer.prompt_ids([Message("user", question.text)]) for question in questions
    ]
    settings = GenerationSettings(max_new_tokens=LONGEST_ANSWER, batch_size=20)
    done: set[int] = set()

    def count(index: int, answer: Answer) -> None:
        done.add(index)
        screen.working("answering", len(done), len(questions))

    answers = generate_answers(
        answering.model, answering.tokenizer, prompts, settings, answering.stop_token_ids, count
    )
    return tuple(answer.text for answer in answers)

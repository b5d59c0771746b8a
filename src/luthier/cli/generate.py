"""`luthier generate`: answers to a file of prompts, with a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from luthier.cli.terminal import console, error_console
from luthier.core.units import format_count, format_seconds

if TYPE_CHECKING:
    from luthier.evaluation.generation import Answer

_LINES = 10
"""Where there is no terminal, progress is told about this many times."""


def run(
    model: str,
    *,
    prompts: str,
    out: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float = 1.0,
    batch_size: int,
    seed: int,
) -> None:
    """Answer a file of prompts.

    Raises:
        LuthierError: The settings, the prompts, the model or the place for the answers won't do.
    """
    from luthier.evaluation.settings import generation_settings

    settings = generation_settings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        batch_size=batch_size,
        seed=seed,
    )
    from luthier.recipes.answer_file import open_answers, partial_path, read_prompts, write_answers

    asked = read_prompts(prompts)
    path = open_answers(out)
    partial = partial_path(path)
    counter = _Counter(len(asked))
    try:
        from luthier.recipes.answering import load_answering_model
        from luthier.recipes.quiet import quiet_libraries

        quiet_libraries()
        console.print(f"Loading {model}", style="dim", markup=False, soft_wrap=True)
        answering = load_answering_model(model)
        console.print(answering.description, style="dim", markup=False, soft_wrap=True)
        with counter:
            write_answers(answering, asked, path, settings, counter.add)
    finally:
        if partial.is_file():
            if counter.num_answers:
                kept = f"The {counter.num_answers} answers so far are in {partial}"
                error_console.print(kept, style="yellow", markup=False)
            else:
                partial.unlink()
    console.print(f"{counter.summary()}\nAnswers: {path}", markup=False, soft_wrap=True)


class _Counter:
    """Counts answers and shows how far it is."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started_s = time.perf_counter()
        self._num_tokens = 0
        self._num_cut = 0
        self.num_answers = 0
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("answering"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self._task = self._bar.add_task("answering", total=total)

    def __enter__(self) -> None:
        self._started_s = time.perf_counter()
        if self._bar is not None:
            self._bar.start()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, answer: Answer) -> None:
        """Count one more answer."""
        self.num_answers += 1
        self._num_tokens += answer.num_tokens
        self._num_cut += answer.finish_reason == "length"
        if self._bar is not None:
            self._bar.advance(self._task)
        elif self.num_answers % max(1, self._total // _LINES) == 0:
            console.print(f"{self.num_answers} of {self._total} answered", markup=False)

    def summary(self) -> str:
        """Return counts and rate in one line."""
        seconds = time.perf_counter() - self._started_s
        text = (
            f"{self.num_answers} answers, {format_count(self._num_tokens)} tokens in "
            f"{format_seconds(seconds)} ({self._num_tokens / seconds:.1f} tokens/s)"
        )
        if self._num_cut:
            text += f"; {self._num_cut} ended at the longest length (finish_reason: length)"
        return text

"""samples.jsonl: what the model said to fixed prompts, step by step; and who asks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier.contracts.conversation import Message
from luthier.contracts.training import (
    Progress,
    Sampler,
    SampleRecord,
    StepRecord,
)
from luthier.core.errors import DataError
from luthier.core.files import append_jsonl, read_jsonl, write_jsonl
from luthier.dataset.documents import begin_token_id
from luthier.dataset.rendering import Renderer
from luthier.dataset.tokens import Encoder
from luthier.evaluation.generation import room_for_answer
from luthier.evaluation.sampler import FixedPrompts
from luthier.recipes.job import Job
from luthier.recipes.run_record import SAMPLES as SAMPLES


class SamplesFile:
    """Writes a line for each prompt and step; implements `Observer`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_start(self, progress: Progress) -> None:
        """Drop what was said after the step that the run goes on from: it will be said again."""
        if not self._path.exists():
            return
        kept = [line for line in read_samples(self._path) if line["step"] <= progress.step]
        if progress.samples_are_due:
            kept = [line for line in kept if line["step"] < progress.step]
        write_jsonl(self._path, kept)

    def on_step(self, record: StepRecord) -> None:
        """See `Observer`."""

    def on_log(self, record: StepRecord) -> None:
        """See `Observer`."""

    def on_evaluation(self, record: StepRecord) -> None:
        """See `Observer`."""

    def on_samples(self, record: SampleRecord) -> None:
        """Write what was said."""
        for sample in record.samples:
            head = {"step": record.step, "epoch": round(record.epoch, 6)}
            append_jsonl(self._path, head | asdict(sample))

    def on_checkpoint(self, step: int, path: str, seconds: float) -> None:
        """See `Observer`."""

    def on_end(self, progress: Progress) -> None:
        """Everything is written already."""


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Return what was said, in order; a last line that a killed run left torn is not read."""
    return read_jsonl(path)


def build_sampler(job: Job, is_stopped: Callable[[], bool]) -> Sampler | None:
    """Return what lets the model answer the run's sample prompts, if it has any.

    Args:
        job: Model, tokenizer and settings.
        is_stopped: Whether the run is to stop.

    Raises:
        DataError: The template refuses a prompt, or one leaves no room for an answer.
    """
    settings = job.config.sampling
    if not settings.sample_prompts:
        return None
    tokenizer = job.data.tokenizer
    ids = [_prompt_ids(job, prompt) for prompt in settings.sample_prompts]
    for number, prompt in enumerate(ids, start=1):
        where = f"sample_prompts, number {number}"
        room_for_answer(job.model, len(prompt), settings.sample_max_new_tokens, where)
    return FixedPrompts(
        prompts=settings.sample_prompts,
        prompt_ids=ids,
        tokenizer=tokenizer,
        stop_token_ids=job.data.stop_token_ids,
        max_new_tokens=settings.sample_max_new_tokens,
        precision=job.precision,
        is_stopped=is_stopped,
    )


def _prompt_ids(job: Job, prompt: str) -> list[int]:
    tokenizer = job.data.tokenizer
    if job.config.run.stage == "pt":
        # A text to go on with, begun as the documents of the training are, and without an end.
        begin, ids = begin_token_id(tokenizer), list(Encoder(tokenizer).encode(prompt).ids)
        return ids if begin is None or ids[:1] == [begin] else [begin, *ids]
    renderer = Renderer(tokenizer, default_system=job.config.tokens.default_system)
    try:
        return renderer.prompt_ids([Message("user", prompt)])
    except DataError as error:
        raise DataError(error.problem, where="sample_prompts", mend=error.mend) from error

"""What a model says to fixed prompts while it is trained: the lecture's look at samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.contracts.training import Sample
from luthier.engine.precision import Precision
from luthier.evaluation.generation import generate_answers
from luthier.evaluation.settings import GenerationSettings


@dataclass(frozen=True, slots=True)
class FixedPrompts:
    """Lets a model answer the same prompts at every call; implements `Sampler`.

    Attributes:
        prompts: As the settings have them.
        prompt_ids: Token ids of each, rendered up to where the answer begins.
        tokenizer: Turns the answers' ids into text.
        stop_token_ids: Any of these ends an answer.
        max_new_tokens: Longest answer.
        precision: The precision that training computes in.
        is_stopped: Asked between tokens: whether to give up, because the run is to stop.
    """

    prompts: Sequence[str]
    prompt_ids: Sequence[Sequence[int]]
    tokenizer: Any
    stop_token_ids: Sequence[int]
    max_new_tokens: int
    precision: Precision
    is_stopped: Callable[[], bool] = lambda: False

    def __call__(self, model: Any) -> tuple[Sample, ...]:
        """Return one answer a prompt, in their order.

        Raises:
            StopAskedError: It was given up.
            DataError: A prompt leaves no room for an answer in the model's context.
        """
        settings = GenerationSettings(max_new_tokens=self.max_new_tokens)
        with self.precision.autocast():
            answers = generate_answers(
                model,
                self.tokenizer,
                self.prompt_ids,
                settings,
                self.stop_token_ids,
                is_stopped=self.is_stopped,
            )
        return tuple(
            Sample(prompt, answer.text, answer.finish_reason)
            for prompt, answer in zip(self.prompts, answers, strict=True)
        )

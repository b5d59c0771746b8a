"""A conversation with a model: what was said, and the next answer. No terminal, no input."""

from __future__ import annotations

from collections.abc import Callable

from luthier.contracts.conversation import Message
from luthier.core.seeds import derive_seed
from luthier.evaluation.generation import Answer, stream_answer
from luthier.evaluation.settings import GenerationSettings
from luthier.recipes.answering import AnsweringModel

RETRY_TEMPERATURE = 0.7
"""Temperature of another try where the settings are greedy and would say the same again."""


class ChatSession:
    """Keeps the turns; changes them only when an answer is there."""

    def __init__(
        self, answering: AnsweringModel, settings: GenerationSettings, system: str | None = None
    ) -> None:
        """Start with an empty history.

        Args:
            answering: The model.
            settings: How it answers.
            system: System prompt; None leaves it to the run's `default_system` or the template.
        """
        self._answering = answering
        self._settings = settings
        self._num_answers = 0
        self.system = system
        self.turns: list[Message] = []

    def ask(self, text: str, on_text: Callable[[str], None]) -> Answer:
        """Say something and return the answer.

        Args:
            text: The user's turn.
            on_text: Told the answer piece by piece.

        Raises:
            DataError: The conversation fills the model's context, or its template refuses it; the
                history is as it was.
        """
        return self._answer([*self.turns, Message("user", text)], self._settings, on_text)

    def retry(self, on_text: Callable[[str], None]) -> Answer | None:
        """Answer the last turn again, drawn at `RETRY_TEMPERATURE` if the settings are greedy.

        Returns:
            The new answer in place of the old one, or None if nothing has been asked.
        """
        if not self.turns:
            return None
        temperature = self._settings.temperature or RETRY_TEMPERATURE
        settings = self._settings.model_copy(update={"temperature": temperature})
        return self._answer(self.turns[:-1], settings, on_text)

    def forget(self) -> None:
        """Begin anew, under the same system prompt."""
        self.turns = []

    def _answer(
        self, turns: list[Message], settings: GenerationSettings, on_text: Callable[[str], None]
    ) -> Answer:
        seed = derive_seed(settings.seed, "chat", self._num_answers)
        told = [Message("system", self.system), *turns] if self.system else turns
        answer = stream_answer(
            self._answering.model,
            self._answering.tokenizer,
            self._answering.prompt_ids(told),
            settings.model_copy(update={"seed": seed}),
            self._answering.stop_token_ids,
            on_text,
        )
        self._num_answers += 1
        # An answer that was stopped before its first word leaves no turn behind.
        if answer.text or answer.finish_reason != "interrupted":
            self.turns = [*turns, Message("assistant", answer.text)]
        return answer

"""Settings of generation: how an answer is drawn from a model, and when it ends."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from luthier.contracts.settings import Settings
from luthier.core.errors import SettingsError

NotEmpty = Annotated[str, Field(min_length=1)]


class GenerationSettings(Settings):
    """How answers are generated.

    Nothing else counts: what a model brings along (a temperature, a repetition penalty) is left
    out, so that greedy is greedy.
    """

    max_new_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens."""

    temperature: float = Field(default=0.0, ge=0.0, le=10.0)
    """0 takes the likeliest token each time; above 0 they are drawn from the softmax."""

    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Draw from the smallest set of tokens that has this much probability together."""

    batch_size: int = Field(default=8, ge=1)
    """Prompts answered at once."""

    seed: int = Field(default=42, ge=0, lt=2**63)
    """Seed of the draws. The same prompts, settings and seed give the same answers."""


class SamplingSettings(Settings):
    """What a run shows of its model while it trains: answers to fixed prompts."""

    sample_prompts: list[NotEmpty] = Field(default_factory=list)
    """Prompts that the model answers before training and again and again, by its likeliest tokens:
    samples.jsonl keeps what it said, and the report shows how it changed."""

    sample_steps: int | None = Field(default=None, ge=1)
    """Steps between such answers. Default: after each epoch; always at the start and the end."""

    sample_max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer to a sample prompt, in tokens."""


def generation_settings(**values: Any) -> GenerationSettings:
    """Build the settings from what the user gave on the command line.

    Args:
        values: Settings by name.

    Returns:
        The settings, checked.

    Raises:
        SettingsError: A value is out of its range; the message names flag, value and range.
    """
    try:
        return GenerationSettings(**values)
    except ValidationError as error:
        detail = error.errors()[0]
        name = str(detail["loc"][0])
        message = detail["msg"][:1].lower() + detail["msg"][1:]
        field = GenerationSettings.model_fields.get(name)
        raise SettingsError(
            f"{name} is {detail['input']!r}: {message}",
            where=f"--{name}",
            mend=f"{name}: {field.description}" if field else None,
        ) from None

"""The models of an evaluation: the one that is asked for, and the base that it is held against.

In: what the user named. Out: one model after another, loaded, with what renders its rows. Where the
base is what stands under an adapter, both come from one load: first the model with its adapter
switched off, then with it. Both have the same type of weights, so that a difference is one of
training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from luthier.core.errors import SettingsError
from luthier.dataset.rendering import Renderer
from luthier.dataset.templates import resolve_template
from luthier.engine.precision import choose_device
from luthier.evaluation.reference_file import model_contents
from luthier.models.load import read_config
from luthier.models.packing_support import check_packed, packing_support
from luthier.models.settings import ModelSettings
from luthier.models.vocabulary import add_token_rows
from luthier.recipes.answering import (
    ModelPlace,
    choose_weight_type,
    default_system,
    find_model,
    load_its_model,
    load_its_tokenizer,
    stop_ids,
)
from luthier.recipes.config_resolve import resolve_file
from luthier.recipes.manifest import describe_model
from luthier.recipes.run_folder import RUN_YAML

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Role = Literal["base", "tuned"]

OWN_BASE = ""
"""What stands for `--base` without a name: the model that this one was made from."""


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A loaded model.

    Attributes:
        role: Whether it is held against the other.
        name: What it is called: as the user named it, or where its weights lie.
        model: In evaluation mode, on its device.
        tokenizer: Its own; of a run's base, the run's.
        renderer: Turns messages into its ids; None for a base model without a chat template.
        stop_token_ids: Any of these ends an answer.
        device: Where it is.
        is_packed: Whether it takes rows end to end.
        identity: What its answers depend on beside prompt and settings, as JSON.
        description: What it is, in one line.
    """

    role: Role
    name: str
    model: Any
    tokenizer: PreTrainedTokenizerFast
    renderer: Renderer | None
    stop_token_ids: tuple[int, ...]
    device: torch.device
    is_packed: bool
    identity: dict[str, Any]
    description: str

    @property
    def context(self) -> int | None:
        """The longest row that the model takes, in tokens; None where its config names none."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)


@dataclass(frozen=True, slots=True)
class Base:
    """What a model is held against: its own weights without its adapter, or another model.

    Attributes:
        place: Where it lies.
        is_own: Whether it is rendered as the tuned model is, by its tokenizer and template.
    """

    place: ModelPlace
    is_own: bool


def choose_base(place: ModelPlace, asked: str | None) -> Base | None:
    """Return what a model is compared with; None if that is not asked for.

    Args:
        place: Where the model lies.
        asked: Name of the base, or `OWN_BASE`.

    Raises:
        SettingsError: Nothing tells which model this one was made from.
        ModelError: There is no such model.
    """
    if asked is None:
        return None
    if asked != OWN_BASE:
        return Base(find_model(asked), is_own=False)
    if place.adapter is not None:
        return Base(ModelPlace(place.weights, place.revision), is_own=True)
    if place.run is None:
        raise SettingsError(
            "nothing tells which model this one was made from: it is no adapter and no run",
            where="--base",
            mend="Name the model to compare with: --base MODEL",
        )
    settings = resolve_file(place.run / RUN_YAML).config.model
    found = find_model(settings.model_name_or_path)
    revision = settings.model_revision if found.folder is None else found.revision
    return Base(ModelPlace(found.weights, revision, found.adapter, found.folder), is_own=True)


def load_evaluated(place: ModelPlace, name: str, base: Base | None) -> Iterator[EvaluatedModel]:
    """Load the models of an evaluation, one after another: the base first.

    What was yielded can't be used once the next is asked for.

    Args:
        place: Where the tuned model lies.
        name: What the user called it.
        base: From `choose_base`.

    Raises:
        ModelError: One can't be loaded.
    """
    device = choose_device()
    # As for an adapter: on a CPU float32, so that a model gives the same numbers alone, as the base
    # of an adapter, and merged with one.
    loader = _Loader(device, choose_weight_type("auto", device, is_adapter=True))
    tokenizer = load_its_tokenizer(place)
    if base is not None and base.is_own and place.adapter is not None:
        model = loader.load(place, tokenizer)
        with model.disable_adapter():
            yield loader.ready("base", base.place.weights, base.place, place, model, tokenizer)
        yield loader.ready("tuned", name, place, place, loader.merged(model), tokenizer)
        return
    if base is not None:
        of_base = tokenizer if base.is_own else load_its_tokenizer(base.place)
        rendered_as = place if base.is_own else base.place
        model = loader.merged(loader.load(base.place, of_base))
        yield loader.ready("base", base.place.weights, base.place, rendered_as, model, of_base)
        del model  # before the next one is loaded
    model = loader.merged(loader.load(place, tokenizer))
    yield loader.ready("tuned", name, place, place, model, tokenizer)


@dataclass(frozen=True, slots=True)
class _Loader:
    """Loads models with weights of one type."""

    device: torch.device
    weight_type: torch.dtype

    def load(self, place: ModelPlace, tokenizer: PreTrainedTokenizerFast) -> Any:
        """Load a model, its adapter apart, with a row for each token of the tokenizer."""
        config = read_config(_settings(place))
        packed = packing_support(config).kind == "segments"
        model = load_its_model(place, len(tokenizer), self.device, self.weight_type, packed=packed)
        num_rows = model.get_input_embeddings().weight.shape[0]
        # A run that added tokens has them in its tokenizer, and its base does not know them.
        add_token_rows(model, range(num_rows, len(tokenizer)))
        return model

    def merged(self, model: Any) -> Any:
        """Merge an adapter where that is exact to rounding (`load_answering_model`)."""
        is_exact = hasattr(model, "peft_config") and self.weight_type == torch.float32
        return model.merge_and_unload() if is_exact else model

    def ready(
        self,
        role: Role,
        name: str,
        place: ModelPlace,
        rendered_as: ModelPlace,
        model: Any,
        tokenizer: PreTrainedTokenizerFast,
    ) -> EvaluatedModel:
        """Put a loaded model beside what renders its rows.

        Args:
            role: What it is in the evaluation.
            name: What it is called.
            place: Where its weights lie.
            rendered_as: The model whose template and stops it answers by.
            model: Loaded.
            tokenizer: Of `rendered_as`.
        """
        model.requires_grad_(False)
        model.eval()
        renderer, eos = None, tokenizer.eos_token_id
        if tokenizer.chat_template:
            resolve_template(tokenizer, "auto")
            renderer = Renderer(tokenizer, default_system=default_system(rendered_as.run))
            stops = stop_ids(tokenizer, model, rendered_as.adapter)
        else:
            stops = (eos,) if isinstance(eos, int) else ()
        type_name = str(self.weight_type).removeprefix("torch.")
        facts = describe_model(_settings(place, with_adapter=True))
        return EvaluatedModel(
            role=role,
            name=name,
            model=model,
            tokenizer=tokenizer,
            renderer=renderer,
            stop_token_ids=stops,
            device=self.device,
            is_packed=packing_support(model.config).kind == "segments"
            and check_packed(model) is None,
            identity={
                **{part: model_contents(found) for part, found in facts.items()},
                "weights": type_name,
                "device": self.device.type,
                "stop_token_ids": list(stops),
            },
            description=f"{name}: {type_name} on {self.device.type}",
        )


def _settings(place: ModelPlace, *, with_adapter: bool = False) -> ModelSettings:
    adapter = str(place.adapter) if with_adapter and place.adapter is not None else None
    return ModelSettings(
        model_name_or_path=place.weights,
        model_revision=place.revision,
        adapter_name_or_path=adapter,
    )

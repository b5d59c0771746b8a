"""The model that is exported: loaded as it was trained, and merged into one folder.

In: where a model lies. Out: the trained model for the probe, with base and adapter apart; and then,
loaded afresh, a `Source`: the merged weights in float32, tokenizer, template and stop tokens. A
whole model is not copied: its weight files are linked.

Merging holds the base in float32, 4 bytes a parameter. That is the peak of an export; targets read
the source a tensor at a time.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from luthier.core.errors import ModelError
from luthier.dataset.templates import resolve_template
from luthier.engine.precision import choose_device
from luthier.export.adapter import ROUNDS_INPUTS
from luthier.export.source import Source, read_json
from luthier.models.adapters import apply_tuning
from luthier.models.load import load_model, local_folder, read_config
from luthier.models.merging import merge_adapter
from luthier.models.reward_model import is_scorer
from luthier.models.settings import LoraTuning, ModelSettings, QuantizationSettings
from luthier.models.vocabulary import add_token_rows
from luthier.recipes.answering import ModelPlace, load_its_tokenizer, stop_ids
from luthier.recipes.config_resolve import resolve_file
from luthier.recipes.export_facts import model_facts
from luthier.recipes.run_folder import RUN_YAML

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SHARD = "2GB"


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """A model before it is loaded.

    Attributes:
        place: Where it lies.
        tokenizer: Its own, with the template that was trained; without one if it has none.
        quantization: How training held the base.
    """

    place: ModelPlace
    tokenizer: PreTrainedTokenizerFast
    quantization: QuantizationSettings

    @property
    def settings(self) -> ModelSettings:
        """Names the weights: those of the base, if there is an adapter."""
        place = self.place
        return ModelSettings(model_name_or_path=place.weights, model_revision=place.revision)

    def load_base(self) -> Any:
        """Load the base in float32, or quantised as in training, with a row for each token.

        One in 8 bits is expanded: `ROUNDS_INPUTS`.

        Raises:
            ModelError: It can't be loaded.
            MissingExtraError: It was quantised and bitsandbytes is not installed.
        """
        model: Any = load_model(
            self.settings, self.quantization, device=choose_device(), dtype=torch.float32
        ).model
        if self.quantization.bits == ROUNDS_INPUTS and model.is_quantized:
            model = model.dequantize(torch.float32)
        num_rows = model.get_input_embeddings().weight.shape[0]
        add_token_rows(model, range(num_rows, len(self.tokenizer)))
        return model

    def load_trained(self) -> Any:
        """Load the trained model with its adapter apart, as training had it."""
        model = self.load_base()
        if self.place.adapter is not None:
            model = apply_tuning(model, LoraTuning(), str(self.place.adapter))
        return model.requires_grad_(False).eval()

    def stop_token_ids(self, model: Any) -> tuple[int, ...]:
        """Return what ends an answer; of a model without a template, what ends a text."""
        if self.tokenizer.chat_template:
            return stop_ids(self.tokenizer, model, self.place.adapter)
        eos = self.tokenizer.eos_token_id
        return (eos,) if isinstance(eos, int) else ()


def open_exported(place: ModelPlace) -> ExportedModel:
    """Read what is small of a model.

    Raises:
        ModelError: It has no tokenizer, or is a reward model.
    """
    settings = ModelSettings(model_name_or_path=place.weights, model_revision=place.revision)
    if is_scorer(read_config(settings)):
        raise ModelError(
            "this is a reward model: it gives a number and writes no answers, and no target here "
            "checks that",
            where=str(place.folder or place.weights),
            mend="Use its folder as it is: transformers opens it for sequence classification.",
        )
    tokenizer = load_its_tokenizer(place)
    if tokenizer.chat_template:
        resolve_template(tokenizer, "auto")
    quantization = QuantizationSettings()
    if place.run is not None and place.adapter is not None:
        quantization = resolve_file(place.run / RUN_YAML).config.quantization
    return ExportedModel(place, tokenizer, quantization)


def make_source(
    model: ExportedModel,
    stop_token_ids: tuple[int, ...],
    folder: Path,
    *,
    with_weights: bool,
) -> Source:
    """Write the folder that all targets start from.

    Args:
        model: What to export.
        stop_token_ids: Any of these ends an answer.
        folder: Empty; removed by the caller when the targets are done.
        with_weights: Whether a target reads weights; else nothing is loaded.

    Raises:
        ModelError: The adapter can't be merged, with the reason; or a file is damaged.
    """
    place = model.place
    kept_dtype = _kept_dtype(read_config(model.settings))
    has_adapter = place.adapter is not None
    if has_adapter and with_weights:
        merged = merge_adapter(model.load_base(), str(place.adapter))
        merged.save_pretrained(folder, max_shard_size=SHARD)
        del merged
    elif place.folder is not None and not has_adapter:
        _link_weights(place.folder, folder)
    elif with_weights:  # a model of the hub
        loaded = load_model(
            model.settings,
            QuantizationSettings(),
            device=torch.device("cpu"),
            dtype=getattr(torch, kept_dtype),
        ).model
        loaded.save_pretrained(folder, max_shard_size=SHARD)
    model.tokenizer.save_pretrained(folder)
    _write_generation(model, stop_token_ids, folder)
    _copy_licence(place.weights, folder)
    return Source(
        folder=folder,
        dtype="float32" if has_adapter else kept_dtype,
        stop_token_ids=stop_token_ids,
        facts=model_facts(place),
        adapter=place.adapter,
        kept_dtype=kept_dtype,
        quantization=model.quantization.model_dump(exclude_unset=True)
        if model.quantization.bits is not None
        else None,
    )


def num_parameters(place: ModelPlace) -> int:
    """Return how many weights the files of a local model hold; 0 for a model of the hub."""
    from safetensors import safe_open

    folder = local_folder(place.weights)
    count = 0
    for file in [] if folder is None else sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 - it is no dict
                size = 1
                for side in shard.get_slice(name).get_shape():
                    size *= side
                count += size
    return count


def _kept_dtype(config: Any) -> str:
    dtype = getattr(config, "dtype", None) or torch.float32
    return str(dtype).removeprefix("torch.")


def _link_weights(of: Path, folder: Path) -> None:
    # A run's folder holds more than a model: only what belongs to it is taken.
    shutil.copyfile(of / "config.json", folder / "config.json")
    for file in (*of.glob("model*.safetensors"), *of.glob("model.safetensors.index.json")):
        (folder / file.name).symlink_to(file.resolve())


def _write_generation(model: ExportedModel, stops: tuple[int, ...], folder: Path) -> None:
    """Write the model's own settings of generation, with the stops and the pad token put right."""
    from transformers import GenerationConfig

    place = model.place
    places = [folder, place.adapter or place.folder, local_folder(place.weights)]
    file = next((p / "generation_config.json" for p in places if p and _has_generation(p)), None)
    known: dict[str, Any] = {} if file is None else read_json(file)
    known |= {"eos_token_id": list(stops), "pad_token_id": model.tokenizer.pad_token_id}
    if isinstance(model.tokenizer.bos_token_id, int):
        known["bos_token_id"] = model.tokenizer.bos_token_id
    GenerationConfig.from_dict(known).save_pretrained(str(folder))


def _has_generation(folder: Path) -> bool:
    return (folder / "generation_config.json").is_file()


def _copy_licence(weights: str, folder: Path) -> None:
    base = local_folder(weights)
    for file in sorted(base.glob("LICENSE*")) if base is not None else []:
        shutil.copyfile(file, folder / file.name)

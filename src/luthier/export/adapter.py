"""`adapter`: the trained adapter alone, with tokenizer and card, for peft and vLLM's LoRA.

Of a base that training held in 4 or 8 bits the folder says so (base.json): beside plain weights the
adapter is not quite what was trained.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.core.errors import ModelError
from luthier.core.files import write_json, write_text
from luthier.export.check import CheckResult, bound_of, check_runtime
from luthier.export.hf import copy_beside_weights
from luthier.export.model_card import model_card
from luthier.export.source import Source, read_json
from luthier.export.target import Artifact, Tell
from luthier.models.fixed_terms import TRAINED_PART

if TYPE_CHECKING:
    from luthier.export.probe import Probe

ADAPTER_CONFIG = "adapter_config.json"
BASE_JSON = "base.json"
ROUNDS_INPUTS = 8
"""Bits of a base whose products round their inputs, too (LLM.int8). No other program does that, so
what was trained is taken to be the weights, and they are expanded before anything is compared."""


class AdapterTarget:
    """An adapter that stays apart from its base."""

    name = "adapter"
    needs_type = False
    needs_weights = False

    def types(self) -> tuple[str, ...]:
        """Return none: an adapter keeps the type that it was trained in."""
        return ()

    def bits(self, kind: str | None) -> float:
        """Return a guess: adapters have a hundredth of their base's weights or so."""
        return 1

    def require(self) -> None:
        """Need nothing that luthier does not bring."""

    def refuse(self, source_config: Mapping[str, Any]) -> None:
        """Refuse nothing by the architecture."""

    def write(self, source: Source, kind: str | None, folder: Path, tell: Tell) -> Artifact:
        """Copy the adapter, and put tokenizer and card beside it.

        Raises:
            ModelError: The model is whole and has no adapter.
        """
        if source.adapter is None:
            raise ModelError(
                "the model has no adapter: its weights were trained whole",
                where="--to adapter",
                mend="Export it whole: --to hf",
            )
        tell("copying the adapter")
        copy_beside_weights(source.folder, folder)
        (folder / "config.json").unlink(missing_ok=True)  # transformers would look for weights
        # What training goes on from lies beside an adapter that was joined with earlier ones.
        for file in (*sorted(source.adapter.glob("adapter_*")), source.adapter / TRAINED_PART):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)
        base = {"base": source.facts.get("base"), "quantization": source.quantization}
        write_json(folder / BASE_JSON, base)
        write_text(folder / "README.md", model_card(source.facts, "adapter"))
        return Artifact(folder)

    def check(self, artifact: Artifact, probe: Probe) -> CheckResult:
        """Put the adapter on its base with peft."""
        import torch
        from peft import PeftModel
        from transformers import AutoTokenizer, GenerationConfig

        from luthier.engine.precision import choose_device
        from luthier.export.transformers_runtime import TransformersRuntime
        from luthier.models.load import load_model
        from luthier.models.settings import ModelSettings, QuantizationSettings
        from luthier.models.vocabulary import add_token_rows

        folder = artifact.folder
        config = read_json(folder / ADAPTER_CONFIG)
        known = read_json(folder / BASE_JSON)["quantization"] or {}
        quantization = QuantizationSettings.model_validate(known)
        settings = ModelSettings(
            model_name_or_path=config["base_model_name_or_path"],
            model_revision=config.get("revision") or "main",
        )
        base: Any = load_model(
            settings,
            quantization,
            device=choose_device(),
            dtype=torch.float32,
        ).model
        if quantization.bits == ROUNDS_INPUTS and base.is_quantized:
            base = base.dequantize(torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        num_rows = base.get_input_embeddings().weight.shape[0]
        add_token_rows(base, range(num_rows, len(tokenizer)))
        model: Any = PeftModel.from_pretrained(base, str(folder))
        # peft's generate goes by the base's settings; the adapter's lie in its own folder.
        base.generation_config = GenerationConfig.from_pretrained(str(folder))
        model.generation_config = base.generation_config
        runtime = TransformersRuntime(model, tokenizer)
        return check_runtime(runtime, probe, bound_of(artifact.kind))

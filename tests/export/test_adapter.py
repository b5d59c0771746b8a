"""An adapter alone, put on its base by peft."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.core.errors import ModelError
from luthier.export.adapter import AdapterTarget
from luthier.export.probe import RowLogProbs
from luthier.export.transformers_runtime import TransformersRuntime
from luthier.models.fixed_terms import TRAINED_PART


def silent(_line):
    pass


@pytest.fixture
def tuned(source, probe, tmp_path):
    """The source with an adapter, and a probe of the two together."""
    from peft import LoraConfig, get_peft_model

    runtime = TransformersRuntime.of_folder(source.folder)
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(runtime.model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    together = TransformersRuntime(model, runtime.tokenizer)
    log_probs = tuple(RowLogProbs.of(together.log_probs(ids), ids) for ids in probe.rows)
    return replace(source, adapter=tmp_path / "adapter"), replace(probe, log_probs=log_probs)


def written(source, tmp_path):
    folder = tmp_path / "artifact"
    folder.mkdir()
    return AdapterTarget().write(source, None, folder, silent)


def test_it_passes_on_its_base(tuned, tmp_path):
    source, probe = tuned
    (source.adapter / TRAINED_PART).write_text("{}")
    artifact = written(source, tmp_path)
    names = {path.name for path in artifact.folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= names
    assert {"generation_config.json", "base.json", "README.md", TRAINED_PART} <= names
    assert not names & {"model.safetensors", "config.json"}
    result = AdapterTarget().check(artifact, probe)
    assert result.problems == ()
    assert result.kl == pytest.approx(0, abs=1e-6)
    assert result.stops is True


def test_another_adapter_does_not_pass(tuned, tmp_path):
    source, probe = tuned
    artifact = written(source, tmp_path)
    path = artifact.folder / "adapter_model.safetensors"
    save_file({n: t.flip(0) if "lora_B" in n else t for n, t in load_file(path).items()}, path)
    result = AdapterTarget().check(artifact, probe)
    assert "its KL divergence is" in result.problems[0]


def test_a_missing_stop_token_does_not_pass(tuned, tmp_path):
    source, probe = tuned
    artifact = written(source, tmp_path)
    path = artifact.folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": source.stop_token_ids[0]}))
    (problem,) = AdapterTarget().check(artifact, probe).problems
    assert f"it does not stop at [{source.stop_token_ids[1]}]" in problem


def test_a_whole_model_has_none(source, tmp_path):
    with pytest.raises(ModelError, match="has no adapter"):
        written(source, tmp_path)

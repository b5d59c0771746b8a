"""The run's manifest: what made this model, and nothing secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import luthier
from luthier.contracts.notice import Notice
from luthier.core.hashing import hash_file, hash_sampled, hash_text
from luthier.models.settings import ModelSettings
from luthier.recipes import manifest
from luthier.recipes.config_file import Entry
from luthier.recipes.config_resolve import resolve
from luthier.recipes.manifest import (
    DIFF,
    describe_luthier,
    describe_model,
    describe_run,
    keep_source_diff,
    write_manifest,
)
from luthier.recipes.run_config import RunConfig
from luthier.recipes.source_version import source_commit, source_sha256


def config_of(**values: object) -> RunConfig:
    return resolve((), [Entry(name, value, "test") for name, value in values.items()]).config


@pytest.fixture
def no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Luthier as it is installed from a wheel."""
    monkeypatch.setattr(manifest, "source_commit", dict)
    monkeypatch.setattr(manifest, "source_diff", str)


@pytest.mark.usefixtures("no_commit")
def test_what_is_recorded_when_a_run_starts(tiny_llama: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tiny_llama()
    config = config_of(
        model_name_or_path=str(folder), seed=7, overwrite_output_dir=True, bf16=False
    )
    notice = Notice("bf16", "bf16", "fp32", "because")
    facts = describe_run(config, ["luthier", "train"], {"key": "k"}, [notice])
    assert facts["luthier"] == {"version": luthier.__version__, "source_sha256": source_sha256()}
    assert facts["command"] == ["luthier", "train"]
    assert facts["working_folder"] == str(Path.cwd())
    assert facts["seed"] == 7
    assert facts["data"] == {"key": "k"}
    assert "corpus" not in facts
    assert facts["notices"] == [
        {"setting": "bf16", "asked": "bf16", "used": "fp32", "reason": "because"}
    ]
    assert facts["packages"]["torch"]
    assert facts["machine"]["cpu"]["cores"] > 0
    assert facts["computing"]["precision"] == "fp32"
    assert facts["computing"]["threads"] == torch.get_num_threads()
    assert facts["environment"]["OMP_NUM_THREADS"] == "1"
    assert facts["started"].endswith("+00:00")
    assert json.loads(json.dumps(facts)) == facts

    def hash_of(**values: object) -> str:
        other = config_of(model_name_or_path=str(folder), bf16=False, **values)
        return describe_run(other, [], {}, [])["settings_sha256"]

    assert hash_of(seed=7) == facts["settings_sha256"]
    assert hash_of(seed=8) != facts["settings_sha256"]


def test_of_a_cleaned_corpus_its_own_inputs_are_recorded(tiny_llama: Any):
    config = config_of(model_name_or_path=str(tiny_llama()))
    facts = {"data_version": "v", "key": "k", "inputs": {}, "packages": {}}
    assert describe_run(config, [], {}, [], {**facts, "more": 1})["corpus"] == facts
    step = {"name": "exact", "rows_in": 5, "rows_out": 3, "dropped": {"dup_exact": 2}}
    sides = {side: {"rows": 5, "languages": {"en": 5}} for side in ("before", "after")}
    corpus = {**facts, "steps": [{**step, "counts": {}}], "statistics": {**sides, "tokenizer": "t"}}
    kept = describe_run(config, [], {}, [], corpus)["corpus"]
    languages = {side: {"languages": {"en": 5}} for side in sides}
    assert kept == {**facts, "steps": [step], "statistics": languages}


def test_a_changed_checkout_leaves_its_diff_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(manifest, "source_commit", lambda: {"commit": "abc"})
    monkeypatch.setattr(manifest, "source_diff", lambda: "diff --git a b\n")
    keep_source_diff(tmp_path)
    facts = describe_luthier()
    assert facts["commit"] == "abc"
    assert facts["diff_sha256"] == hash_file(tmp_path / DIFF) == hash_text("diff --git a b\n")
    monkeypatch.setattr(manifest, "source_diff", str)
    keep_source_diff(tmp_path)
    assert not (tmp_path / DIFF).exists()
    assert "diff_sha256" not in describe_luthier()


def test_the_commit_of_this_source_is_recorded():
    assert source_commit().items() <= describe_luthier().items()


def test_a_model_folder_is_told_by_its_files(tiny_llama: Any):
    folder = tiny_llama()
    (facts,) = describe_model(ModelSettings(model_name_or_path=str(folder))).values()
    weights, config = folder / "model.safetensors", folder / "config.json"
    assert facts["path"] == str(folder)
    assert facts["weights_sha256"] == {"model.safetensors": hash_sampled(weights)}
    assert facts["config_sha256"]["config.json"] == hash_file(config)
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    again = describe_model(ModelSettings(model_name_or_path=str(folder)))["model"]
    assert again["weights_sha256"] != facts["weights_sha256"]


def test_an_adapter_is_described_beside_its_base(tmp_path: Path, tiny_llama: Any):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).write_bytes(b"{}")
    settings = ModelSettings(
        model_name_or_path=str(tiny_llama()), adapter_name_or_path=str(adapter)
    )
    facts = describe_model(settings)
    assert facts.keys() == {"model", "adapter"}
    assert facts["adapter"]["config_sha256"].keys() == {"adapter_config.json"}
    assert facts["adapter"]["weights_sha256"].keys() == {"adapter_model.safetensors"}
    several = settings.model_copy(update={"adapter_name_or_path": f"{adapter},{adapter}"})
    assert describe_model(several) == {**facts, "adapter_1": facts["adapter"]}


@pytest.mark.parametrize("name", ["owner/name-that-nobody-has", "no name for a hub"])
def test_a_hub_model_that_is_not_fetched_is_recorded_by_name(name: str):
    assert describe_model(ModelSettings(model_name_or_path=name)) == {"model": {"name": name}}


def test_a_fetched_hub_model_is_recorded_with_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--owner--name"
    snapshot = cached / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123abcd", encoding="utf-8")
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_bytes(b"{}")
    facts = describe_model(ModelSettings(model_name_or_path="owner/name"))["model"]
    assert facts["commit"] == "0123abcd"
    assert facts["weights_sha256"].keys() == {"model.safetensors"}
    assert str(tmp_path) not in json.dumps(facts)


def test_no_variable_but_the_listed_and_no_token_is_recorded(
    tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
):
    for name in ("HF_TOKEN", "WANDB_API_KEY", "USER", "HOSTNAME", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "s3cr3t-value")
    config = config_of(model_name_or_path=str(tiny_llama()))
    assert "s3cr3t-value" not in json.dumps(describe_run(config, [], {}, []))


def test_the_earlier_parts_of_a_run(tmp_path: Path):
    assert manifest.earlier_parts(tmp_path) == []
    part = {"started": "a", "command": ["x"], "luthier": {"version": "1"}}
    write_manifest(tmp_path, {**part, "seed": 1, "earlier": [{"n": 1}]})
    assert manifest.earlier_parts(tmp_path) == [{"n": 1}, part]


def test_writing_hides_secrets_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_SECRET", "s3cr3t-value")
    write_manifest(tmp_path, {"语": "言", "command": ["luthier", "--x=s3cr3t-value"]})
    text = (tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"语": "言", "command": ["luthier", "--x=***"]}
    assert "语" in text

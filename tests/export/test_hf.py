"""What `hf` writes opens in transformers, and what is wrong with it does not pass."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.export.hf import HfTarget
from luthier.export.source import INDEX
from luthier.export.target import Artifact


def silent(_line):
    pass


@pytest.fixture
def write(source, tmp_path):
    def make(kind=None, shard_bytes=2**31, source=source):
        folder = tmp_path / "artifact"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return HfTarget(shard_bytes).write(source, kind, folder, silent)

    return make


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_a_folder_of_each_type_passes(write, source, probe, kind):
    artifact = write(kind)
    assert artifact.kind == kind
    stored = load_file(artifact.folder / "model.safetensors")
    assert {str(t.dtype) for t in stored.values()} == {f"torch.{kind}"}
    assert json.loads((artifact.folder / "config.json").read_text())["dtype"] == kind
    result = HfTarget().check(artifact, probe)
    # The tiny model's probabilities are close together: a wide type is what has to be exact.
    if kind != "bfloat16":
        assert result.problems == ()
    assert result.ids_equal is result.stops is result.cached_equal is True
    assert result.kl is not None
    assert result.kl < 1e-2


def test_without_a_type_the_base_s_is_kept(write, source):
    assert write(source=replace(source, kept_dtype="float16")).kind == "float16"


def test_the_older_name_of_the_type_is_kept_right(write, source):
    path = source.folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "torch_dtype": "float32"}))
    written = json.loads((write("bfloat16").folder / "config.json").read_text())
    assert written["torch_dtype"] == written["dtype"] == "bfloat16"


def test_numbers_that_are_no_weights_keep_their_type(write, source):
    path = source.folder / "model.safetensors"
    save_file({**load_file(path), "counts": torch.arange(3)}, path, metadata={"format": "pt"})
    stored = load_file(write("float16").folder / "model.safetensors")
    assert stored["counts"].dtype == torch.int64


def test_a_large_model_is_written_in_shards(write, source, probe):
    artifact = write("float32", shard_bytes=20_000)
    index = json.loads((artifact.folder / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 2
    assert shards == sorted(path.name for path in artifact.folder.glob("*.safetensors"))
    assert shards[-1] == f"model-{len(shards):05}-of-{len(shards):05}.safetensors"
    assert index["metadata"]["total_size"] == sum(t.nbytes for _, t in source.tensors())
    assert HfTarget().check(artifact, probe).problems == ()


def test_beside_the_weights_lie_tokenizer_template_stops_and_card(write, source):
    folder = write().folder
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "README.md"):
        assert (folder / name).is_file(), name
    assert "# model (hf, float32)" in (folder / "README.md").read_text()
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1, "a file that others can't read"


def swap_tensors(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    one, other = (f"model.layers.{n}.mlp.up_proj.weight" for n in (0, 1))
    tensors[one], tensors[other] = tensors[other], tensors[one]
    save_file(tensors, path, metadata={"format": "pt"})


def swap_template(folder):
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("message['role']", "message['role'] + ' '"))


def lose_a_stop(folder):
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "eos_token_id": settings["eos_token_id"][:1]}))


def swap_tokenizer(folder):
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text())
    described["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": True,
    }
    path.write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (swap_tensors, "its KL divergence is"),
        (swap_template, "the chat template differs"),
        (lose_a_stop, "it does not stop at"),
        (swap_tokenizer, "the tokenizer differs"),
    ],
)
def test_a_planted_fault_does_not_pass(write, probe, damage, problem):
    artifact = write()
    before = {path.name: path.read_bytes() for path in artifact.folder.iterdir()}
    damage(artifact.folder)
    assert any(before[path.name] != path.read_bytes() for path in artifact.folder.iterdir())
    result = HfTarget().check(Artifact(artifact.folder, artifact.kind), probe)
    assert any(problem in found for found in result.problems), result.problems

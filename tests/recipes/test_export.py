"""The whole of `luthier export` and `luthier verify` on a run of a second."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.core.errors import LuthierError, ModelError, RunError, SettingsError
from luthier.export.check import CheckResult
from luthier.export.hf import HfTarget
from luthier.export.record import read_record
from luthier.recipes import export as module
from luthier.recipes.export import export, verify
from luthier.recipes.export_request import ExportRequest


@pytest.fixture
def run(small_run):
    return small_run.train(max_steps=2, learning_rate=0.03, save_steps=1).folder


@pytest.fixture
def export_as(recorder):
    def call(model, *targets, **changes):
        return export(ExportRequest(str(model), targets, **changes), recorder)

    return call


def left_over(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".staging-")]


def test_a_run_is_exported_checked_and_verified_elsewhere(
    run, export_as, recorder, small_run, tmp_path
):
    whole, adapter = export_as(run, "hf", "adapter")
    assert [one.result.problems for one in (whole, adapter)] == [(), ()]
    assert whole.folder == run / "exports" / "out-hf"
    assert adapter.folder == run / "exports" / "out-adapter"
    assert whole.result.kl < 1e-6
    assert whole.num_bytes > adapter.num_bytes > 0
    assert left_over(run / "exports") == []
    record = read_record(whole.folder)
    assert record["check"]["verdict"] == "passed"
    assert record["run"] == str(run.resolve())
    assert record["data"]["prepared data"]
    assert record["luthier"]["source_sha256"]
    assert record["files"].keys() >= {"model.safetensors", "config.json", "probe/log_probs.npz"}
    assert "merging" in " ".join(recorder.said).lower()

    moved = tmp_path / "elsewhere"
    whole.folder.rename(moved)
    shutil.rmtree(small_run.model)
    shutil.rmtree(run)
    verified = verify(str(moved), recorder)
    assert verified.result.problems == ()
    assert verified.result.kl == pytest.approx(whole.result.kl, abs=1e-9)


def test_a_checkpoint_and_an_adapter_s_folder_are_exported(run, export_as, tmp_path):
    checkpoint = run / "checkpoints" / "step-000001"
    (one,) = export_as(checkpoint, "adapter")
    assert one.folder == run / "exports" / "out-step-000001-adapter"
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint / "model", bare)
    (other,) = export_as(bare, "hf", out=str(tmp_path / "o"), dtype="float16")
    assert other.folder.name == "bare-hf-float16"
    assert other.result.problems == ()


def test_an_adapter_alone_merges_nothing(run, export_as, monkeypatch):
    monkeypatch.delattr("luthier.recipes.export_source.merge_adapter")
    assert export_as(run, "adapter")[0].result.problems == ()


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: pip install 'luthier[bnb]'",
)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_base_that_was_quantised_is_expanded(small_run, export_as, bits):
    run = small_run.train(max_steps=2, quantization_bit=bits).folder
    for one in export_as(run, "hf", "adapter"):
        assert one.result.problems == ()
        assert one.result.kl < 1e-6
    assert json.loads((run / "exports/out-adapter/base.json").read_text())["quantization"] == {
        "quantization_bit": bits
    }


def test_what_fails_is_kept_under_another_name(run, export_as, monkeypatch, recorder):
    real = HfTarget.write

    def turning(self, source, kind, folder, tell):
        artifact = real(self, source, kind, folder, tell)
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].flip(0)
        save_file(tensors, path, metadata={"format": "pt"})
        return artifact

    (good,) = export_as(run, "hf")
    monkeypatch.setattr(HfTarget, "write", turning)
    (bad,) = export_as(run, "hf", overwrite=True)
    assert "its KL divergence is" in bad.result.problems[0]
    assert bad.folder.name == "out-hf.failed"
    assert read_record(bad.folder)["check"]["verdict"] == "failed"
    assert verify(str(good.folder), recorder).result.problems == (), "the good one is replaced"
    assert verify(str(bad.folder), recorder).result.problems != ()


def test_a_changed_file_does_not_verify(run, export_as, recorder):
    (one,) = export_as(run, "hf")
    with (one.folder / "generation_config.json").open("a") as file:
        file.write("\n")
    verified = verify(str(one.folder), recorder)
    assert verified.result == CheckResult(
        problems=("generation_config.json is not the file that was exported: its sha256 differs",)
    )


def test_an_export_that_is_there_is_replaced_only_if_asked(run, export_as):
    (first,) = export_as(run, "adapter")
    with pytest.raises(RunError, match="an export of that name already") as error:
        export_as(run, "hf", "adapter")
    assert "--overwrite" in str(error.value.mend)
    assert not (run / "exports" / "out-hf").exists()
    (first.folder / "mine.txt").write_text("left")
    export_as(run, "adapter", overwrite=True)
    assert not (first.folder / "mine.txt").exists()


def test_a_type_for_all_and_a_type_for_one(run, export_as):
    found = export_as(run, "hf", "hf:float32", "adapter", dtype="float16")
    assert [one.kind for one in found] == ["float16", "float32", None]
    stored = load_file(found[0].folder / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}


@pytest.mark.parametrize(
    ("targets", "changes", "problem"),
    [
        (["hff"], {}, "unknown target 'hff'"),
        (["hf:Q8_0"], {}, "hf has no type 'Q8_0'"),
        (["hf"], {"dtype": "float15"}, "unknown type 'float15'"),
        (["adapter"], {"dtype": "float16"}, "no target that is named writes weights of that type"),
    ],
)
def test_a_wrong_request_ends_before_anything_is_loaded(
    tmp_path, export_as, targets, changes, problem
):
    with pytest.raises(SettingsError, match=problem):
        export_as(tmp_path / "nothing", *targets, **changes)


def test_a_model_of_no_run_needs_a_place(small_run, export_as, tmp_path):
    with pytest.raises(SettingsError, match="no place for the export") as error:
        export_as(small_run.model, "hf")
    assert "--out FOLDER" in str(error.value.mend)
    (one,) = export_as(small_run.model, "hf", out=str(tmp_path / "o"))
    assert one.result.problems == ()
    with pytest.raises(ModelError, match="has no adapter"):
        export_as(small_run.model, "adapter", out=str(tmp_path / "o"))
    assert left_over(tmp_path / "o") == []


def test_a_base_that_moved_is_named_with_the_mend(run, small_run, export_as):
    small_run.model.rename(small_run.model.with_name("moved"))
    with pytest.raises(ModelError, match=r"base model .* is not there") as error:
        export_as(run, "hf")
    assert "base_model_name_or_path" in str(error.value.mend)


def test_a_run_without_weights_names_its_checkpoint(run, export_as):
    for path in run.glob("adapter_*"):
        path.unlink()
    with pytest.raises(ModelError, match="holds no weights") as error:
        export_as(run, "hf")
    assert "step-000002" in str(error.value.mend)


def test_a_full_disk_is_seen_before_anything_is_written(run, export_as, monkeypatch):
    asked = []

    def full(root, what, elsewhere, needed_bytes):
        asked.append(needed_bytes)
        raise LuthierError("the disk is full")

    monkeypatch.setattr(module, "check_room", full)
    for targets in (["adapter"], ["hf:float16"], ["hf:float16", "hf:float32"]):
        with pytest.raises(LuthierError, match="the disk is full"):
            export_as(run, *targets)
    adapter, half, both = asked
    num_parameters = half // 6  # merged in 4 bytes, written in 2
    assert half == 6 * num_parameters > 100_000
    assert both == 10 * num_parameters
    assert adapter < num_parameters
    assert list((run / "exports").iterdir()) == []


def test_what_a_target_refuses_is_refused_first(run, export_as, monkeypatch):
    def refuse(self, source_config):
        raise ModelError(f"no {source_config['model_type']} here")

    monkeypatch.setattr(HfTarget, "refuse", refuse)
    with pytest.raises(ModelError, match="no llama here"):
        export_as(run, "hf")


def test_an_artifact_of_an_unknown_target_is_not_verified(run, export_as, recorder):
    (one,) = export_as(run, "adapter")
    path = one.folder / "export.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target": "hff"}))
    with pytest.raises(SettingsError, match="has no target 'hff'"):
        verify(str(one.folder), recorder)


def test_a_folder_that_is_no_export_is_named(tmp_path, recorder):
    with pytest.raises(RunError, match="holds no export"):
        verify(str(tmp_path), recorder)

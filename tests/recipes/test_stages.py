"""Pre-training from a settings file to a model folder, tuned and packed in every way."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import DataError, ModelError, RunError, SettingsError
from luthier.recipes.config_resolve import resolve_file
from luthier.recipes.inspection import inspect_run
from luthier.recipes.packed import settle_packing
from luthier.recipes.reproduce import check_run, open_run, reproduce, verify
from luthier.recipes.run_config import RunSettings
from luthier.recipes.stages import STAGES, batch_inputs, stage_of

WORDS = ["the", "dog", "and", "the", "cat", "sat", "on", "a", "mat", "in", "the", "sun"]
DOCUMENTS = [
    " ".join((WORDS[number:] + WORDS[:number]) * (number % 4 + 1)) + "." for number in range(11)
]
VAL = ["the cat sat on the dog.", "a mat, a café, a 狗."]


def write_lines(path: Path, texts: list[str]) -> str:
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def pt_run(small_run: Any, tiny_llama: Any, load_tiny: Any) -> Any:
    """A run on 11 documents of a base model: no chat template, and a BOS before each text."""
    tokenizer = load_tiny("llama3")
    assert tokenizer.chat_template is None
    small_run.model = tiny_llama("base", tokenizer=tokenizer)
    small_run.values |= {
        "stage": "pt",
        "model_name_or_path": str(small_run.model),
        "train_file": write_lines(small_run.folder / "train.txt", DOCUMENTS),
        "val_file": write_lines(small_run.folder / "val.txt", VAL),
        "cutoff_len": 32,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
    }
    return small_run


def token_lists(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def test_every_stage_can_be_asked_for():
    stage = RunSettings.model_fields["stage"].annotation
    assert set(stage.__args__) == STAGES.keys()  # type: ignore[union-attr]


@pytest.mark.parametrize("finetuning_type", ["full", "lora"])
@pytest.mark.parametrize("packing", ["true", "false"])
def test_pre_training_from_a_settings_file(pt_run: Any, finetuning_type: str, packing: str):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = pt_run.train(
        *("--packing", packing, "--num_train_epochs", "4"), finetuning_type=finetuning_type
    )
    assert run.result.finished
    assert not run.result.can_chat
    first, last = run.result.first_eval, run.result.last_eval
    assert last["eval_loss"] < first["eval_loss"] - 0.1
    assert last["eval_bits_per_byte"] < first["eval_bits_per_byte"]
    tokenizer = AutoTokenizer.from_pretrained(str(run.folder))
    assert tokenizer.chat_template is None
    taught = sum(len(ids) - 1 for ids in token_lists(tokenizer, DOCUMENTS))
    assert run.result.progress.num_supervised_seen == 4 * taught
    model = AutoModelForCausalLM.from_pretrained(str(run.folder))
    assert model.generation_config.eos_token_id in (
        tokenizer.eos_token_id,
        [tokenizer.eos_token_id],
    )


def test_perplexities_are_those_of_each_document_alone(pt_run: Any):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = pt_run.train("--max_steps", "3", finetuning_type="full")
    tokenizer = AutoTokenizer.from_pretrained(str(run.folder))
    model: Any = AutoModelForCausalLM.from_pretrained(str(run.folder)).double()
    nats = num_tokens = 0.0
    for ids in token_lists(tokenizer, VAL):
        tokens = torch.tensor([ids])
        with torch.no_grad():
            log_probs = model(input_ids=tokens).logits[0, :-1].log_softmax(-1)
        nats -= float(log_probs.gather(-1, tokens[0, 1:, None]).sum())
        num_tokens += len(ids) - 1
    num_bytes = sum(len(text.encode()) for text in VAL)
    found = run.result.last_eval
    assert found["eval_perplexity"] == pytest.approx(math.exp(nats / num_tokens), rel=1e-4)
    assert found["eval_bits_per_byte"] == pytest.approx(nats / num_bytes / math.log(2), rel=1e-4)
    assert found["eval_byte_perplexity"] == pytest.approx(math.exp(nats / num_bytes), rel=1e-4)


def test_packed_and_padded_rows_take_the_same_steps(pt_run: Any):
    runs = [
        pt_run.train("--packing", packing, output_dir=str(pt_run.folder / packing))
        for packing in ("false", "padding_free")
    ]
    padded, flat = (run.losses() for run in runs)
    assert len(padded) > 8
    assert flat == pytest.approx(padded, rel=1e-5)


def test_rows_are_filled_unless_padding_is_asked_for(pt_run: Any):
    assert settle_packing(pt_run.config())[0].batches.packing is True
    assert settle_packing(pt_run.config("--group_by_length"))[0].batches.packing is False
    assert settle_packing(pt_run.config("--stage", "sft"))[0].batches.packing == "padding_free"


def test_going_on_is_exact_and_may_change_the_batches(pt_run: Any):
    whole = pt_run.train(output_dir=str(pt_run.folder / "whole"))
    assert whole.result.progress.num_steps > 6
    pt_run.train(stop_after=4)
    rest = pt_run.train("--resume_from_checkpoint")
    assert whole.losses() == rest.losses()
    one, other = weights(whole.folder), weights(rest.folder)
    assert all(torch.equal(one[name], other[name]) for name in one)

    changed = pt_run.folder / "changed"
    pt_run.train(stop_after=2, output_dir=str(changed))
    flags = ("--resume_from_checkpoint", "--gradient_accumulation_steps", "2")
    with pytest.raises(RunError, match="gradient_accumulation_steps: 1 -> 2"):
        pt_run.train(*flags, output_dir=str(changed))
    allowed = ("--allow_change", "gradient_accumulation_steps")
    rest = pt_run.train(*flags, *allowed, output_dir=str(changed))
    progress, num_rows = rest.result.progress, len(rest.screen.prepared.train)
    assert rest.result.finished
    assert progress.num_rows_seen == 2 * num_rows


def test_a_run_of_the_other_stage_is_not_gone_on_with(pt_run: Any):
    pt_run.train(stop_after=2)
    rows = [{"instruction": f"Name {i}.", "output": "Red."} for i in range(3)]
    (pt_run.folder / "chat.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(RunError, match=r"data \(files, "):
        pt_run.train(
            *("--resume_from_checkpoint", "--template", "lecture", "--cutoff_len", "512"),
            *("--val_size", "1", "--packing", "true"),
            stage="sft",
            train_file=str(pt_run.folder / "chat.json"),
            val_file=None,
        )


def test_the_reference_trainer_takes_documents_too(pt_run: Any):
    own = pt_run.train("--packing", "false", output_dir=str(pt_run.folder / "own"))
    reference = pt_run.train(trainer="transformers", output_dir=str(pt_run.folder / "reference"))
    assert reference.losses() == pytest.approx(own.losses(), rel=1e-4)
    assert "eval_bits_per_byte" in reference.result.last_eval


def test_a_run_is_repeated(pt_run: Any, recorder: Any):
    first = pt_run.train("--max_steps", "3")
    assert "template_sha256" not in first.manifest()["data"]
    run = open_run(first.folder)
    assert not check_run(run).today.differences

    class NeverStop:
        requested = has_work = False

        def take_checkpoint_request(self) -> bool:
            return False

    again = reproduce(run, ["luthier", "reproduce"], recorder, NeverStop())
    assert verify(run, again).identical


def test_what_an_inspection_shows(pt_run: Any, recorder: Any):
    found = inspect_run(pt_run.config(), recorder, 99, with_losses=True)
    counts = found.data.prepared.manifest["counts"]
    rows: Any = found.data.prepared.train
    assert counts["continued_rows"] == len(rows) - len(DOCUMENTS) > 3
    assert counts["truncated_rows"] == 0
    assert found.estimate.padding_share == 0
    assert not found.notices
    for row, shown in zip(rows, found.rows, strict=True):
        assert shown.num_taught == shown.num_tokens - 1 == len(row["input_ids"]) - 1
        assert not shown.pieces[0].taught
        assert all(piece.loss is not None for piece in shown.pieces if piece.taught)
    titles = [shown.origin for shown in found.rows]
    assert any(title.endswith("train.txt:4 (part 2 of 3)") for title in titles), titles


def test_documents_of_a_prepared_corpus(pt_run: Any, recorder: Any):
    texts = [*DOCUMENTS, DOCUMENTS[0]]
    config = pt_run.config(
        train_file=write_lines(pt_run.folder / "twice.txt", texts),
        val_file=None,
        steps=["exact"],
        corpus_dir=str(pt_run.folder / "corpus"),
    )
    assert stage_of(config) is STAGES["pt"]
    found = inspect_run(config, recorder, 0)
    manifest = found.data.prepared.manifest
    assert manifest["counts"]["conversations"] == len(DOCUMENTS)
    assert manifest["splits"]["train"]["text_bytes"] == sum(map(len, DOCUMENTS))


def test_documents_of_one_task_weigh_less(pt_run: Any):
    rows = [{"text": text, "site": "ab"[i % 2]} for i, text in enumerate(DOCUMENTS)]
    path = pt_run.folder / "sites.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = pt_run.train(
        "--max_steps",
        "2",
        train_file=str(path),
        val_file=None,
        val_size=3,
        task_column="site",
        task_weights={"a": 0.5},
    )
    weights = run.screen.prepared.train["loss_weights"]
    assert {max(of_row) for of_row in weights} == {0.5, 1.0}
    assert math.isfinite(run.result.last_eval["eval_bits_per_byte"])


def test_one_giant_document_on_one_line(pt_run: Any, recorder: Any):
    text = "the dog and the cat sat on a mat. " * 155_000
    assert len(text) > 5e6
    config = pt_run.config(
        "--cutoff_len", "2048", train_file=write_lines(pt_run.folder / "giant.txt", [text])
    )
    prepared = inspect_run(config, recorder, 1).data.prepared
    split = prepared.manifest["splits"]["train"]
    assert split["text_bytes"] == len(text)
    assert split["rows"] == prepared.manifest["counts"]["continued_rows"] + 1
    assert split["supervised_tokens"] == split["tokens"] - split["rows"]
    last = prepared.train[-1]
    assert last["labels"][0] == IGNORE_INDEX
    assert last["input_ids"][0] == prepared.train[-2]["input_ids"][-1]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", DataError, "empty"),
        (b"  \n\t\n", DataError, "nothing but blank lines"),
        (b"caf\xe9\n" * 20, DataError, "UTF-8"),
        (b"<|end_of_text|>\n" * 3, DataError, "3 empty_text(.|\n)*no token stands for its text"),
    ],
    ids=["empty", "blank", "latin1", "marks"],
)
def test_files_that_hold_no_document(
    pt_run: Any, content: bytes, error: type[Exception], message: str
):
    path = pt_run.folder / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(error, match=message):
        pt_run.train(train_file=str(path))


def test_conversations_are_refused_and_the_way_out_is_told(pt_run: Any, write_file: Any):
    rows = json.dumps([{"instruction": "Name it.", "output": "Red."}])
    message = r"rows\.json.*: the row holds no document(.|\n)*columns: \{text: FIELD\}.*stage: sft"
    with pytest.raises(DataError, match=message):
        pt_run.train(train_file=str(write_file("rows.json", rows)))
    sft = {"stage": "sft", "template": "lecture", "val_file": None}
    with pytest.raises(DataError, match=r"train\.txt:1: (.|\n)*learned by stage: pt"):
        pt_run.train(**sft)


def test_a_tokenizer_without_an_end_token(pt_run: Any):
    path = pt_run.model / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["eos_token"]
    path.write_text(json.dumps(values | {"pad_token": "<|begin_of_text|>"}), encoding="utf-8")
    with pytest.raises(ModelError, match="names no end token"):
        pt_run.train()


def test_the_settings_file_that_is_shipped():
    config = resolve_file(Path(__file__).parents[2] / "configs" / "pt_text.yaml").config
    assert stage_of(config) is STAGES["pt"]


def test_an_unknown_stage(pt_run: Any):
    with pytest.raises(SettingsError, match=r"stage is 'ptt', and can be sft or pt"):
        pt_run.config(stage="ptt")


def test_a_margin_that_a_stage_does_not_read_is_told():
    rows = Dataset.from_dict({"input_ids": [[1]], "margin": [0.5]})
    (notice,) = STAGES["dpo"].ignored_columns(rows)
    assert str(notice) == "margin: this stage does not read it; reward models (stage: rm) do"
    assert STAGES["dpo"].ignored_columns(rows.remove_columns("margin")) == ()
    assert STAGES["rm"].ignored_columns(rows) == ()


def test_what_a_model_is_given_of_a_batch():
    ids = torch.tensor([[1, 2, 3]])
    padded = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    assert batch_inputs(padded).keys() == {"input_ids", "attention_mask"}
    flat = {
        "input_ids": ids,
        "labels": ids,
        "position_ids": torch.tensor([[0, 0, 1]]),
        "cu_seqlens": torch.tensor([0, 1, 3], dtype=torch.int32),
    }
    assert batch_inputs(flat)["max_length_q"] == 2

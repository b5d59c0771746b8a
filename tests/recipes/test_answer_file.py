from __future__ import annotations

import json

import pytest
import torch

from luthier.core.errors import DataError, RunError
from luthier.evaluation.settings import GenerationSettings
from luthier.recipes.answer_file import open_answers, partial_path, read_prompts, write_answers
from luthier.recipes.answering import load_answering_model

SETTINGS = GenerationSettings(max_new_tokens=6, batch_size=2)
ROWS = [
    {"prompt": "Name a colour."},
    {"instruction": "Translate", "input": "Good morning, everyone", "output": "passed over"},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "用中文回答。"},
        ]
    },
]


@pytest.fixture
def answering(tiny_llama):
    folder = str(tiny_llama(initializer_range=0.4))
    return load_answering_model(folder, torch.device("cpu"), "float32")


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_answers_stand_in_the_order_of_their_prompts(tmp_path, answering, prompts_file):
    prompts = read_prompts(str(prompts_file))
    out = open_answers(str(tmp_path / "new" / "answers.jsonl"))
    told = []
    write_answers(answering, prompts, out, SETTINGS, told.append)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row.get("prompt") for row in rows] == [
        "Name a colour.",
        "Translate\nGood morning, everyone",
        None,
    ]
    assert rows[2]["messages"] == ROWS[2]["messages"]
    assert all(row["finish_reason"] in ("stop", "length") for row in rows)
    assert sorted(row["answer"] for row in rows) == sorted(answer.text for answer in told)
    assert {row["num_tokens"] for row in rows} <= set(range(7))
    assert "用中文回答。" in out.read_text(encoding="utf-8")
    assert not partial_path(out).exists()


def test_a_json_array_serves_as_well(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(ROWS))
    assert len(read_prompts(str(path))) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "no prompt"}', "text"),
        ('{"prompt": 3}', "the number 3"),
        ('{"prompt": "cut', "cut|ends|JSON"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, line, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n{line}\n{{"prompt": "fine"}}\n')
    with pytest.raises(DataError, match=message) as caught:
        read_prompts(str(path))
    assert caught.value.where == f"{path}:2"
    assert "on_bad_row" not in str(caught.value.mend)


def test_an_answers_file_that_is_there_is_not_written_over(tmp_path):
    out = tmp_path / "answers.jsonl"
    out.write_text("mine")
    with pytest.raises(RunError, match="is there already") as caught:
        open_answers(str(out))
    assert "--out" in str(caught.value.mend)
    assert out.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="the answers can't be written: "):
        open_answers(str(tmp_path / "file" / "answers.jsonl"))


def test_a_broken_off_run_leaves_what_it_had(tmp_path, answering, prompts_file):
    prompts = read_prompts(str(prompts_file))
    out = open_answers(str(tmp_path / "answers.jsonl"))

    def interrupt(_answer: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_answers(answering, prompts, out, SETTINGS, interrupt)
    assert len(partial_path(out).read_text().splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("broken", ["append_jsonl", "write_jsonl"])
def test_a_full_disk_is_said(tmp_path, answering, prompts_file, monkeypatch, broken):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    prompts = read_prompts(str(prompts_file))
    out = open_answers(str(tmp_path / "answers.jsonl"))
    monkeypatch.setattr(f"luthier.recipes.answer_file.{broken}", full)
    with pytest.raises(RunError, match="can't be written: No space left on device"):
        write_answers(answering, prompts, out, SETTINGS, lambda _: None)


def test_a_prompt_that_is_too_long_is_named_by_line(tmp_path, answering):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "short"}\n' + json.dumps({"prompt": "word " * 600}) + "\n")
    out = open_answers(str(tmp_path / "answers.jsonl"))
    with pytest.raises(DataError, match="the model's context is 512") as caught:
        write_answers(answering, read_prompts(str(path)), out, SETTINGS, lambda _: None)
    assert caught.value.where == f"{path}:2"


def test_messages_that_the_template_refuses_are_named_by_line(prompts_file, tmp_path, tiny_llama):
    folder = tiny_llama("strict")
    template = (folder / "chat_template.jinja").read_text()
    refusal = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(refusal + template)
    answering = load_answering_model(str(folder), torch.device("cpu"), "float32")
    out = open_answers(str(tmp_path / "answers.jsonl"))
    with pytest.raises(DataError, match="no system") as caught:
        write_answers(answering, read_prompts(str(prompts_file)), out, SETTINGS, lambda _: None)
    assert caught.value.where == f"{prompts_file}:3"

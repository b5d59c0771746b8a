from __future__ import annotations

from ruamel.yaml import YAML

from luthier.export.model_card import model_card

FACTS = {
    "name": "run-7",
    "base": 'a "quoted": base',
    "licence": "apache-2.0",
    "data": {"prepared data": "abc123"},
    "settings": {"learning_rate": 1e-4, "lora_rank": 8},
    "metrics": {"eval_loss": 1.23456789},
}


def test_the_card_tells_what_is_known_in_both_languages():
    card = model_card(FACTS, "hf, bfloat16")
    for text in ("# run-7 (hf, bfloat16)", "/ 数据", "/ 指标", "prepared data: abc123"):
        assert text in card
    assert "- learning_rate: 0.0001" in card
    assert "- eval_loss: 1.2346" in card
    front = YAML(typ="safe").load(card.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == 'a "quoted": base'


def test_what_is_not_known_is_not_claimed():
    card = model_card({}, "adapter")
    assert "license:" not in card
    assert "base_model:" not in card
    assert card.count("not known") == 5


def test_a_value_of_several_lines_stays_in_its_line():
    card = model_card({"data": {"file": "a\n## Metrics\n- all: 100"}}, "hf")
    assert card.count("\n## Metrics") == 1

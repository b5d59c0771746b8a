from __future__ import annotations

import json
from pathlib import Path

from luthier.recipes.rollout_file import PROMPTS_PER_DRAW, RolloutFile

SAMPLES = [{"prompt": f"p{n}", "answer": "琴"} for n in range(PROMPTS_PER_DRAW + 2)]


def test_some_answers_of_each_draw_once(tmp_path: Path):
    path = tmp_path / "rollouts.jsonl"
    write = RolloutFile(path)
    write(11, SAMPLES)
    write(11, SAMPLES)
    write(12, SAMPLES[:1])
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["seed"] for line in lines] == [11] * PROMPTS_PER_DRAW + [12]
    assert lines[0] == {"seed": 11, "prompt": "p0", "answer": "琴"}
    RolloutFile(path)(12, SAMPLES)
    RolloutFile(path)(13, SAMPLES[:1])
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(lines) + 1


def test_a_torn_last_line_is_passed_over(tmp_path: Path):
    path = tmp_path / "rollouts.jsonl"
    RolloutFile(path)(11, SAMPLES[:1])
    path.write_text(path.read_text(encoding="utf-8") + '{"seed": 12', encoding="utf-8")
    RolloutFile(path)(12, SAMPLES[:1])
    assert '"seed": 11' in path.read_text(encoding="utf-8")

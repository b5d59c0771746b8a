"""What all contestants of preference.py are given, and the measure that all are held against.

    python benchmarks/preference_inputs.py pairs|score CASE.json

`pairs` draws training and held-out pairs, and writes of each its tokens by luthier's preparation.
`score` sums the log-probabilities that a saved model gives both answers of held-out pairs: each
answer a pass of its own behind its prompt, in float32.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

IGNORE_INDEX = -100


def write_pairs(case: dict[str, Any]) -> None:
    """Write `train.jsonl` (rows as the file has them) and the tokens of both splits' pairs.

    Raises:
        SystemExit: Too few pairs are left.
    """
    folder, data = Path(case["folder"]), Path(case["data"])
    text = data.read_text(encoding="utf-8")
    rows = json.loads(text) if data.suffix == ".json" else list(map(json.loads, text.splitlines()))
    every = folder / "every.jsonl"
    write_lines(every, rows)
    pairs = prepared_pairs(every, case)
    needed = case["rows"] + case["heldout"]
    if len(pairs) < needed:
        sys.exit(
            f"{data} has {len(pairs)} pairs of at most {case['cutoff_len']} tokens; "
            f"{case['rows']} + {case['heldout']} are asked for"
        )
    random.Random(case["seed"]).shuffle(pairs)
    heldout, train = pairs[: case["heldout"]], pairs[case["heldout"] : needed]
    write_lines(folder / "train.jsonl", [rows[pair["row"]] for pair in train])
    write_lines(folder / "train-pairs.jsonl", train)
    write_lines(folder / "heldout-pairs.jsonl", heldout)
    counts = {"in_file": len(rows), "usable": len(pairs)}
    (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


def prepared_pairs(file: Path, case: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pairs of a file that fit `cutoff_len` whole, as `as_pair` has them.

    Args:
        file: JSON lines.
        case: With `model`, `cutoff_len`, `folder` and `seed`.
    """
    from luthier.corpus.settings import CorpusSettings
    from luthier.dataset.judged import PAIRS
    from luthier.dataset.prepare import prepare
    from luthier.dataset.settings import DatasetSettings
    from luthier.dataset.templates import resolve_template
    from luthier.dataset.tokenizer import load_tokenizer

    tokenizer, _ = resolve_template(load_tokenizer(case["model"]), "auto")
    settings = DatasetSettings(
        cutoff_len=case["cutoff_len"],
        on_long_row="drop",
        prepared_dir=str(Path(case["folder"]) / "prepared"),
    )
    source = CorpusSettings(train_file=str(file))
    rows: Any = prepare(source, settings, tokenizer, seed=case["seed"], kind=PAIRS).train
    found = (as_pair(row, tokenizer) for row in rows)
    return [pair for pair in found if pair is not None]


def as_pair(row: dict[str, Any], tokenizer: Any) -> dict[str, Any] | None:
    """Return the parts of a prepared pair as text and as ids, without what carries no loss.

    TRL takes text and teaches every token of an answer. So the line end behind an answer, which
    luthier reads and doesn't teach, is left out, and a pair whose text doesn't become the same ids
    again isn't used.

    Args:
        row: A prepared pair (`contracts/rows.py`), with its `origin`.
        tokenizer: The one that made it.

    Returns:
        `prompt`, `chosen`, `rejected`, the same with `_ids`, `row` (its number in the file, from
        0) and `read`, the tokens that luthier reads of it; or None.
    """
    ids, labels = list(row["input_ids"]), list(row["labels"])
    prompt, end = row["prompt_length"], row["prompt_length"] + row["chosen_length"]
    spans = {"prompt": (0, prompt)}
    for name, start, stop in (("chosen", prompt, end), ("rejected", end, len(ids))):
        taught = [label != IGNORE_INDEX for label in labels[start:stop]]
        if not all(taught[: sum(taught)]):
            return None
        spans[name] = (start, start + sum(taught))
    pair: dict[str, Any] = {f"{name}_ids": ids[a:b] for name, (a, b) in spans.items()}
    pair |= {
        name: tokenizer.decode(pair[f"{name}_ids"], clean_up_tokenization_spaces=False)
        for name in spans
    }
    for name in ("chosen", "rejected"):
        if not pair[name].endswith(tokenizer.eos_token):  # TRL would add it.
            return None
        whole = tokenizer(pair["prompt"] + pair[name])["input_ids"]
        if whole != pair["prompt_ids"] + pair[f"{name}_ids"]:
            return None
    line = int(row["origin"].rpartition(":")[2])
    return {**pair, "row": line - 1, "read": len(ids)}


def score(case: dict[str, Any]) -> None:
    """Write log p of both answers of each held-out pair to `log_probs.json`."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    with Path(case["pairs"]).open(encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]
    found = answer_log_probs(case["model"], pairs, case["device"])
    (Path(case["folder"]) / "log_probs.json").write_text(json.dumps(found), encoding="utf-8")


def answer_log_probs(
    folder: str, pairs: list[dict[str, Any]], device: str
) -> list[tuple[float, float]]:
    """Return the summed log-probabilities of the chosen and the rejected answer of each pair.

    Args:
        folder: A model, or an adapter that names its base.
        pairs: With `prompt_ids`, `chosen_ids` and `rejected_ids`.
        device: Where to compute.
    """
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    is_adapter = Path(folder, "adapter_config.json").is_file()
    kind: Any = AutoPeftModelForCausalLM if is_adapter else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32).to(device).eval()

    def log_prob(prompt: list[int], answer: list[int]) -> float:
        ids = torch.tensor([prompt + answer], device=device)
        logits = model(input_ids=ids, logits_to_keep=len(answer) + 1).logits[0, :-1]
        targets = ids[0, len(prompt) :, None]
        return float(logits.log_softmax(-1).gather(1, targets).double().sum())

    with torch.inference_mode():
        return [
            (
                log_prob(pair["prompt_ids"], pair["chosen_ids"]),
                log_prob(pair["prompt_ids"], pair["rejected_ids"]),
            )
            for pair in pairs
        ]


def write_lines(path: Path, rows: list[Any]) -> None:
    """Write rows as JSON lines."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    jobs = {"pairs": write_pairs, "score": score}
    jobs[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))

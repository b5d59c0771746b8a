"""An artifact as transformers opens it: nothing but the files in its folder.

Weights are widened to float32: what is measured is what the artifact's type has lost, not what the
arithmetic of one machine adds to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luthier.engine.precision import choose_device
from luthier.export.probe import FloatArray


class TransformersRuntime:
    """A model and a tokenizer of transformers, and what they do if nobody says otherwise.

    Args:
        model: Causal language model; the settings of its generation are the artifact's.
        tokenizer: The artifact's.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @classmethod
    def of_folder(cls, folder: Path) -> TransformersRuntime:
        """Open a folder with the Auto classes."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=torch.float32, use_safetensors=True
        )
        return cls(model.to(choose_device()), AutoTokenizer.from_pretrained(str(folder)))

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int] | None:
        """Return the ids that ask for the next answer."""
        if not self.tokenizer.chat_template:
            return []
        asked = self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_dict=True
        )
        return list(asked["input_ids"])

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a rendered text."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def stop_token_ids(self) -> frozenset[int]:
        """Return what generation_config.json names."""
        named = self.model.generation_config.eos_token_id
        return frozenset([named] if isinstance(named, int) else named or [])

    @torch.inference_mode()
    def log_probs(self, ids: Sequence[int]) -> FloatArray:
        """Return log-probabilities of each place but the last."""
        logits = self.model(torch.tensor([list(ids)], device=self.model.device)).logits
        return _log_probs(logits[0, :-1])

    @torch.inference_mode()
    def cached_log_probs(self, ids: Sequence[int]) -> FloatArray | None:
        """Return the same, a token at a time."""
        past, found = None, []
        for id_ in ids[:-1]:
            asked = torch.tensor([[id_]], device=self.model.device)
            output = self.model(asked, past_key_values=past, use_cache=True)
            past = output.past_key_values
            found.append(_log_probs(output.logits[0]))
        return np.concatenate(found)

    @torch.inference_mode()
    def answer(self, ids: Sequence[int], max_new_tokens: int) -> tuple[str, bool]:
        """Return the greedy answer by the artifact's own settings."""
        asked = torch.tensor([list(ids)], device=self.model.device)
        written = self.model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )[0, len(ids) :].tolist()
        ended = bool(written) and written[-1] in self.stop_token_ids()
        return self.tokenizer.decode(written, skip_special_tokens=True), ended


def _log_probs(logits: torch.Tensor) -> FloatArray:
    found: FloatArray = logits.float().log_softmax(-1).cpu().numpy()
    return found

from __future__ import annotations

import numpy as np
import pytest
import torch

from luthier.export.transformers_runtime import TransformersRuntime


@pytest.fixture
def runtime(source):
    return TransformersRuntime.of_folder(source.folder)


def test_probabilities_are_the_model_s_own(runtime):
    ids = [5, 9, 30, 7, 8]
    with torch.no_grad():
        expected = runtime.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    found = runtime.log_probs(ids)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(runtime.cached_log_probs(ids), found, atol=1e-4)


def test_answers_end_where_generation_config_says(runtime):
    ids = [5, 9, 30, 7, 8]
    first = int(runtime.log_probs([*ids, 0])[-1].argmax())
    runtime.model.generation_config.eos_token_id = first
    assert runtime.stop_token_ids() == {first}
    assert runtime.answer(ids, 5)[1] is True
    runtime.model.generation_config.eos_token_id = None
    assert runtime.stop_token_ids() == frozenset()
    assert runtime.answer(ids, 5)[1] is False


def test_without_a_template_a_chat_has_no_ids(runtime):
    assert runtime.chat_ids([{"role": "user", "content": "a"}])
    runtime.tokenizer.chat_template = None
    assert runtime.chat_ids([{"role": "user", "content": "a"}]) == []


def test_a_narrow_folder_is_widened(source, tmp_path):
    runtime = TransformersRuntime.of_folder(source.folder)
    runtime.model.half().save_pretrained(tmp_path)
    runtime.tokenizer.save_pretrained(tmp_path)
    assert TransformersRuntime.of_folder(tmp_path).model.dtype == torch.float32

"""A decoder that remembers: what it computes, what it reads, and that both are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.models.activation_store import ActivationStore
from luthier.models.cached_decoder import CachedDecoder, choose_rows, find_spans
from luthier.models.layer_split import LayerSplit, split_decoder
from luthier.models.segments import SEGMENTS, packed_inputs, register_segments

LARGE = 1 << 20
ROWS = [list(range(start, start + length)) for start, length in ((3, 9), (12, 4), (5, 6), (20, 1))]


def padded(*rows: list[int]) -> dict[str, Any]:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def flat(*rows: list[int]) -> dict[str, Any]:
    ids = torch.tensor([[token for row in rows for token in row]])
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
    ends = torch.tensor([0, *map(len, rows)]).cumsum(0)
    return packed_inputs({"input_ids": ids, "position_ids": positions, "cu_seqlens": ends})


LAYOUTS = [padded, flat]


@pytest.fixture
def remember(make_model: Callable[..., Any], tmp_path: Path):
    """Make a decoder that remembers, around a tiny model whose last layer is trained."""

    def make(
        memory: int = LARGE,
        disk: int = 0,
        kind: str = "llama",
        keep_training_rows: bool = True,
        **config: Any,
    ) -> CachedDecoder:
        register_segments()
        model = make_model(kind, initializer_range=0.3, **config)
        model.set_attn_implementation(SEGMENTS)
        model.requires_grad_(False)
        model.model.layers[-1].requires_grad_(True)
        model.train()
        split = split_decoder(model.model, packed=True)
        assert isinstance(split, LayerSplit)
        store = ActivationStore(memory, disk, tmp_path, print)
        return CachedDecoder(split, store, keep_training_rows)

    return make


def real(output: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """Return the hidden states of all tokens but padding, (T, D)."""
    spans = find_spans(inputs)
    assert spans is not None
    hidden = output.last_hidden_state.flatten(0, 1)
    return torch.cat([hidden[start:stop] for start, stop in spans])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("room", [(LARGE, 0), (0, LARGE), (600, 300)])
def test_the_same_batch_gives_the_same_bits(
    layout: Any, kind: str, room: tuple[int, int], remember: Any
):
    decoder, inputs = remember(*room, kind=kind), layout(*ROWS)
    plain = decoder.split.whole(**inputs, use_cache=False)
    first, second, third = (decoder(**inputs) for _ in range(3))
    assert torch.equal(real(first, inputs), real(plain, inputs))
    if sum(room) >= LARGE:
        assert (decoder.num_computed, decoder.num_read) == (20, 40)
        assert torch.equal(real(second, inputs), real(plain, inputs))
    else:
        # At 64 bytes a token, 9 tokens go to memory and 4 to disk; the other 7 find no room.
        assert (decoder.store.memory_bytes, decoder.store.disk_bytes) == (9 * 64, 4 * 64)
        assert (decoder.num_computed, decoder.num_read) == (20 + 2 * 7, 2 * 13)
    torch.testing.assert_close(real(second, inputs), real(plain, inputs), rtol=1e-5, atol=1e-5)
    assert torch.equal(real(third, inputs), real(second, inputs))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_those_of_the_plain_decoder(layout: Any, remember: Any):
    decoder, inputs = remember(), layout(*ROWS)
    decoder(**inputs)
    trained = [p for p in decoder.split.whole.parameters() if p.requires_grad]
    gradients: list[list[torch.Tensor]] = []
    for run in (decoder, decoder.split.whole):
        real(run(**inputs, use_cache=False), inputs).square().sum().backward()
        gradients.append([p.grad.clone() for p in trained if p.grad is not None])
        for parameter in trained:
            parameter.grad = None
    assert decoder.num_read == 20
    assert len(gradients[0]) == len(gradients[1]) > 5
    for found, expected in zip(*gradients, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("before", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_is_known_in_any_batch(before: Any, layout: Any, remember: Any):
    decoder = remember()
    decoder(**before(ROWS[2], ROWS[0]))
    inputs = layout(*ROWS)
    expected = real(decoder.split.whole(**inputs, use_cache=False), inputs)
    found = real(decoder(**inputs), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (decoder.num_computed, decoder.num_read) == (15 + 5, 15)


def test_evaluation_and_training_share_what_they_know(remember: Any):
    decoder, inputs = remember(), padded(*ROWS)
    decoder.split.whole.eval()
    with torch.inference_mode():
        decoder(**inputs)
    decoder.split.whole.train()
    real(decoder(**inputs), inputs).sum().backward()
    assert (decoder.num_computed, decoder.num_read) == (20, 20)
    with torch.inference_mode():
        decoder(**inputs)
    assert decoder.num_read == 40


def test_rows_that_training_sees_once_are_not_kept(remember: Any):
    decoder, inputs = remember(keep_training_rows=False), padded(*ROWS)
    decoder(**inputs)
    assert len(decoder.store) == 0
    decoder.split.whole.eval()
    decoder(**inputs)
    assert len(decoder.store) == 4


def test_the_same_row_twice_in_a_batch(remember: Any):
    decoder = remember()
    decoder(**padded(ROWS[0], ROWS[0]))
    assert len(decoder.store) == 1
    inputs = padded(ROWS[1], ROWS[0], ROWS[1])
    expected = real(decoder.split.whole(**inputs, use_cache=False), inputs)
    torch.testing.assert_close(real(decoder(**inputs), inputs), expected, rtol=1e-5, atol=1e-5)


def test_values_are_kept_in_the_type_that_the_layer_gave(remember: Any):
    decoder, inputs = remember(), flat(*ROWS)
    decoder.split.whole.to(torch.bfloat16)
    plain = decoder.split.whole(**inputs, use_cache=False)
    outputs = [decoder(**inputs) for _ in range(2)]
    assert decoder.store.memory_bytes == 20 * 16 * 2
    for output in outputs:
        assert output.last_hidden_state.dtype == torch.bfloat16
        assert torch.equal(real(output, inputs), real(plain, inputs))


def test_under_autocast(remember: Any):
    decoder, inputs = remember(), flat(*ROWS)
    with torch.autocast("cpu", torch.bfloat16):
        plain = decoder.split.whole(**inputs, use_cache=False)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            output = decoder(**inputs)
        assert torch.equal(real(output, inputs), real(plain, inputs))
        real(output, inputs).sum().backward()
    assert decoder.num_read == 20
    assert all(p.grad is not None for p in decoder.split.upper.layers.parameters())


def test_with_recomputed_activations(remember: Any):
    decoder, inputs = remember(), padded(*ROWS)
    decoder.split.whole.activation_checkpointing_enable({"use_reentrant": False})
    gradients: list[torch.Tensor] = []
    for run in (decoder, decoder, decoder.split.whole):
        real(run(**inputs, use_cache=False), inputs).square().sum().backward()
        weight = decoder.split.upper.layers[0].mlp.up_proj.weight
        gradients.append(weight.grad.clone())
        weight.grad = None
    assert decoder.num_read == 20
    assert torch.equal(gradients[0], gradients[2])
    assert torch.equal(gradients[1], gradients[2])


def test_batches_whose_rows_are_not_plain_to_see_go_to_the_plain_decoder(remember: Any):
    decoder = remember()
    left = {"input_ids": torch.tensor([[0, 4, 5]]), "attention_mask": torch.tensor([[0, 1, 1]])}
    own_positions = padded(ROWS[0]) | {"position_ids": torch.arange(9)[None]}
    for inputs in (left, own_positions, {"input_ids": torch.tensor([[4, 5]])}):
        expected = decoder.split.whole(**inputs, use_cache=False).last_hidden_state
        assert torch.equal(decoder(**inputs).last_hidden_state, expected)
    assert decoder(**padded(ROWS[0]), use_cache=True).past_key_values is not None
    assert (decoder.num_computed, len(decoder.store)) == (0, 0)


def test_spans():
    assert find_spans(flat(*ROWS)) == [(0, 9), (9, 13), (13, 19), (19, 20)]
    assert find_spans(padded(*ROWS)) == [(0, 9), (9, 13), (18, 24), (27, 28)]
    holes = {"input_ids": torch.ones(1, 3), "attention_mask": torch.tensor([[1, 0, 1]])}
    assert find_spans(holes) is None


def test_chosen_rows_make_a_batch_like_the_one_they_came_from():
    for layout in LAYOUTS:
        inputs = layout(*ROWS)
        spans = find_spans(inputs)
        assert spans is not None
        part, part_spans = choose_rows(inputs, spans, [1, 3])
        expected = layout(ROWS[1], ROWS[3])
        assert part.keys() == expected.keys()
        assert part_spans == find_spans(expected)
        for name, value in expected.items():
            same = torch.equal(part[name], value) if torch.is_tensor(value) else None
            assert part[name] == value if same is None else same


@pytest.mark.parametrize("layout", LAYOUTS)
def test_remembering_runs_no_upper_layer(layout: Any, remember: Any):
    decoder, inputs = remember(), layout(*ROWS)
    plain = decoder.split.whole(**inputs, use_cache=False)
    ran: list[int] = []
    decoder.split.upper.layers[0].register_forward_hook(lambda *_: ran.append(1))
    decoder.remember(**inputs)
    decoder.remember(input_ids=torch.tensor([[4, 5]]))
    assert ran == []
    assert len(decoder.store) == 4
    assert torch.equal(real(decoder(**inputs), inputs), real(plain, inputs))
    assert (decoder.num_computed, decoder.num_read) == (20, 20)


def test_while_it_is_paused_the_plain_decoder_runs(remember: Any):
    decoder, inputs = remember(), flat(*ROWS)
    decoder.paused = True
    decoder(**inputs)
    assert (len(decoder.store), decoder.num_computed) == (0, 0)
    decoder.paused = False
    decoder(**inputs)
    assert len(decoder.store) == 4

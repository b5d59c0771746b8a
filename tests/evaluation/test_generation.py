from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from luthier.contracts.training import StopAskedError
from luthier.core.errors import DataError
from luthier.evaluation.generation import (
    generate_answers,
    generate_tokens,
    room_for_answer,
    stream_answer,
)
from luthier.evaluation.settings import GenerationSettings

GREEDY = GenerationSettings(max_new_tokens=12, batch_size=3)
NO_STOP: tuple[int, ...] = ()


@pytest.fixture
def model(tiny_llama):
    from transformers import AutoModelForCausalLM

    # Wide weights: the likeliest token leads by far, and depends on the whole prompt.
    loaded = AutoModelForCausalLM.from_pretrained(tiny_llama(initializer_range=0.4))
    loaded.config.use_cache = False
    return loaded


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(1)
    lengths = (5, 17, 2, 9, 17, 1, 30)
    return [torch.randint(10, 300, (n,), generator=generator).tolist() for n in lengths]


def greedy_without_cache(model, prompt, count):
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_batches_say_what_each_prompt_alone_is_answered(model, tiny_tokenizer, prompts):
    together = generate_answers(model, tiny_tokenizer, prompts, GREEDY, NO_STOP)
    alone = [generate_answers(model, tiny_tokenizer, [p], GREEDY, NO_STOP)[0] for p in prompts]
    assert together == alone
    assert len({answer.text for answer in together}) == len(prompts)


def test_the_cache_changes_no_token(model, tiny_tokenizer, prompts):
    answers = generate_answers(model, tiny_tokenizer, prompts, GREEDY, NO_STOP)
    for prompt, answer in zip(prompts, answers, strict=True):
        slow = greedy_without_cache(model, prompt, 12)
        assert answer.text == tiny_tokenizer.decode(slow, skip_special_tokens=True)


def test_the_cache_is_used_though_training_switched_it_off(model, tiny_tokenizer, prompts):
    widths: list[int] = []
    model.register_forward_pre_hook(
        lambda _module, _args, given: widths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    generate_answers(model, tiny_tokenizer, prompts[:1], GREEDY, NO_STOP)
    assert widths == [5] + [1] * 11


def test_answers_keep_the_order_of_the_prompts(model, tiny_tokenizer, prompts):
    told = {}
    answers = generate_answers(model, tiny_tokenizer, prompts, GREEDY, NO_STOP, told.__setitem__)
    assert [told[index] for index in range(len(prompts))] == answers
    backwards = generate_answers(model, tiny_tokenizer, prompts[::-1], GREEDY, NO_STOP)
    assert backwards[::-1] == answers


def test_batches_hold_prompts_of_like_length(model, tiny_tokenizer, prompts):
    order: list[int] = []
    generate_answers(
        model, tiny_tokenizer, prompts, GREEDY, NO_STOP, lambda index, _: order.append(index)
    )
    assert [len(prompts[index]) for index in order] == [30, 17, 17, 9, 5, 2, 1]


def test_any_stop_token_ends_an_answer_and_is_not_in_it(model, tiny_tokenizer, prompts):
    written = [greedy_without_cache(model, prompt, 12) for prompt in prompts]
    stops = (written[0][4], written[3][2])
    answers = generate_answers(model, tiny_tokenizer, prompts, GREEDY, stops)
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}
    for ids, answer in zip(written, answers, strict=True):
        end = next((i for i, token in enumerate(ids) if token in stops), None)
        kept = ids[:end]
        assert answer.text == tiny_tokenizer.decode(kept, skip_special_tokens=True)
        assert answer.num_tokens == len(kept)
        assert answer.finish_reason == ("length" if end is None else "stop")


def test_a_streamed_answer_is_the_generated_one(model, tiny_tokenizer, prompts):
    stop = (greedy_without_cache(model, prompts[0], 12)[7],)
    expected = generate_answers(model, tiny_tokenizer, prompts, GREEDY, stop)
    for prompt, answer in zip(prompts, expected, strict=True):
        pieces: list[str] = []
        streamed = stream_answer(model, tiny_tokenizer, prompt, GREEDY, stop, pieces.append)
        assert streamed == answer
        assert "".join(pieces) == answer.text


def test_streamed_chinese_is_whole_characters(model, tiny_tokenizer):
    text = "琴师用云杉做琴，再上漆。"
    ids = tiny_tokenizer.encode("龘<|im_start|>" + text + "<|im_end|>")
    start = tiny_tokenizer.encode("龘<|im_start|>")
    stop = (tiny_tokenizer.eos_token_id,)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batch = torch.tensor([ids])
    for _ in range(150):
        loss = model(batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.02:
            break
    pieces: list[str] = []
    long = GREEDY.model_copy(update={"max_new_tokens": 100})
    answer = stream_answer(model, tiny_tokenizer, start, long, stop, pieces.append)
    assert answer.text == text == "".join(pieces)
    assert answer.finish_reason == "stop"
    assert len(pieces) > 6
    assert not any("\ufffd" in piece for piece in pieces)


def test_ctrl_c_keeps_what_has_been_written(model, tiny_tokenizer, prompts):
    whole = generate_answers(model, tiny_tokenizer, prompts[:1], GREEDY, NO_STOP)[0]
    pieces: list[str] = []

    def interrupt(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    model.train()
    answer = stream_answer(model, tiny_tokenizer, prompts[0], GREEDY, NO_STOP, interrupt)
    assert answer.finish_reason == "interrupted"
    assert answer.text == "".join(pieces)
    assert whole.text.startswith(answer.text)
    assert 0 < len(answer.text) < len(whole.text)
    assert model.training


def test_ctrl_c_within_a_character_leaves_the_half_of_it_out(model, tiny_tokenizer, monkeypatch):
    first, _ = tiny_tokenizer.encode("漆", add_special_tokens=False)[:2]

    def interrupted(self, ids, streamer, **given):
        streamer.put(ids)
        streamer.put(torch.tensor([first]))
        raise KeyboardInterrupt

    monkeypatch.setattr(type(model), "generate", interrupted)
    answer = stream_answer(model, tiny_tokenizer, [20], GREEDY, NO_STOP, lambda _: None)
    assert (answer.text, answer.finish_reason) == ("", "interrupted")


def test_an_answer_that_is_cut_ends_with_a_whole_character(model, tiny_tokenizer, monkeypatch):
    first, second = tiny_tokenizer.encode("漆", add_special_tokens=False)[:2]
    whole = tiny_tokenizer.encode("琴", add_special_tokens=False)

    def cut(self, ids, streamer=None, **given):
        new = torch.tensor([*whole, first, second])
        if streamer is not None:
            streamer.put(ids)
            for token in new:
                streamer.put(token[None])
            streamer.end()
        return torch.cat([ids, new[None].expand(len(ids), -1)], dim=1)

    monkeypatch.setattr(type(model), "generate", cut)
    (answer,) = generate_answers(model, tiny_tokenizer, [[20]], GREEDY, NO_STOP)
    streamed = stream_answer(model, tiny_tokenizer, [20], GREEDY, NO_STOP, lambda _: None)
    assert (answer.text, answer.finish_reason) == ("琴", "length")
    assert (streamed.text, streamed.finish_reason) == ("琴", "length")


@pytest.mark.parametrize("is_training", [True, False])
def test_a_look_leaves_the_model_and_the_random_state_alone(
    model, tiny_tokenizer, prompts, is_training
):
    model.train(is_training)
    config, state = model.generation_config, torch.get_rng_state()
    drawn = GREEDY.model_copy(update={"temperature": 1.0})
    generate_answers(model, tiny_tokenizer, prompts, drawn, NO_STOP)
    stream_answer(model, tiny_tokenizer, prompts[0], drawn, NO_STOP, lambda _: None)
    assert model.training is is_training
    assert model.generation_config is config
    assert model.config.use_cache is False
    assert torch.equal(torch.get_rng_state(), state)


def test_greedy_is_greedy_whatever_the_model_brings_along(model, tiny_tokenizer, prompts, capfd):
    plain = generate_answers(model, tiny_tokenizer, prompts, GREEDY, NO_STOP)
    model.generation_config.update(
        repetition_penalty=5.0, temperature=0.7, top_p=0.8, top_k=20, do_sample=True, max_length=9
    )
    assert generate_answers(model, tiny_tokenizer, prompts, GREEDY, NO_STOP) == plain
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.filterwarnings("error")
def test_transformers_has_nothing_to_warn_of(model, tiny_tokenizer, prompts, capfd):
    tiny_tokenizer.pad_token = tiny_tokenizer.eos_token
    ends_with_pad = [*prompts, [*prompts[0], tiny_tokenizer.pad_token_id]]
    for temperature in (0.0, 0.8):
        settings = GREEDY.model_copy(update={"temperature": temperature, "top_p": 0.9})
        stops = (tiny_tokenizer.eos_token_id,)
        generate_answers(model, tiny_tokenizer, ends_with_pad, settings, stops)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_tokenizer_without_pad_token_serves(model, tiny_tokenizer, prompts):
    expected = generate_answers(model, tiny_tokenizer, prompts, GREEDY, NO_STOP)
    tiny_tokenizer.pad_token = None
    assert generate_answers(model, tiny_tokenizer, prompts, GREEDY, NO_STOP) == expected


def test_draws_follow_the_seed(model, tiny_tokenizer, prompts):
    drawn = GREEDY.model_copy(update={"temperature": 1.5})
    first = generate_answers(model, tiny_tokenizer, prompts, drawn, NO_STOP)
    assert generate_answers(model, tiny_tokenizer, prompts, drawn, NO_STOP) == first
    other = drawn.model_copy(update={"seed": 7})
    assert generate_answers(model, tiny_tokenizer, prompts, other, NO_STOP) != first


def test_a_tiny_top_p_leaves_only_the_likeliest(model, tiny_tokenizer, prompts):
    narrow = GREEDY.model_copy(update={"temperature": 1.5, "top_p": 1e-6})
    greedy = generate_answers(model, tiny_tokenizer, prompts, GREEDY, NO_STOP)
    assert generate_answers(model, tiny_tokenizer, prompts, narrow, NO_STOP) == greedy


def test_an_adapter_takes_part(model, tiny_tokenizer, prompts):
    from peft import LoraConfig, get_peft_model

    plain = generate_answers(model, tiny_tokenizer, prompts, GREEDY, NO_STOP)
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    assert generate_answers(wrapped, tiny_tokenizer, prompts, GREEDY, NO_STOP) == plain
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=2.0)
    tuned = generate_answers(wrapped, tiny_tokenizer, prompts, GREEDY, NO_STOP)
    assert tuned != plain
    merged = wrapped.merge_and_unload()
    assert generate_answers(merged, tiny_tokenizer, prompts, GREEDY, NO_STOP) == tuned


def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers(model, tiny_tokenizer):
    message = "the prompt has 600 tokens, and the model's context is 512"
    with pytest.raises(DataError, match=message) as caught:
        generate_answers(model, tiny_tokenizer, [[20] * 3, [20] * 600], GREEDY, NO_STOP)
    assert caught.value.where == "prompt 2"
    with pytest.raises(DataError, match=message):
        stream_answer(model, tiny_tokenizer, [20] * 600, GREEDY, NO_STOP, lambda _: None)


def test_the_end_of_the_context_shortens_only_the_answers_that_reach_it(model, tiny_tokenizer):
    prompts = [[20] * 4, [21] * 509, [22] * 5]
    settings = GREEDY.model_copy(update={"batch_size": 8})
    answers = generate_answers(model, tiny_tokenizer, prompts, settings, NO_STOP)
    assert [answer.num_tokens for answer in answers] == [12, 3, 12]


def test_a_model_without_a_named_context_has_room():
    from transformers import BloomConfig

    model = SimpleNamespace(config=BloomConfig())
    assert room_for_answer(model, 10_000, 12) == 12


def test_no_prompts_no_answers(model, tiny_tokenizer):
    assert generate_answers(model, tiny_tokenizer, [], GREEDY, NO_STOP) == []


def test_tokens_are_those_of_the_answers_with_what_stopped_them(model, tiny_tokenizer, prompts):
    drawn = GenerationSettings(max_new_tokens=12, batch_size=3, temperature=1.0)
    whole = generate_tokens(model, tiny_tokenizer, prompts, drawn, NO_STOP)
    assert [len(ids) for ids in whole] == [12] * len(prompts)
    stop = whole[0][4]
    tokens = generate_tokens(model, tiny_tokenizer, prompts, drawn, [stop])
    answers = generate_answers(model, tiny_tokenizer, prompts, drawn, [stop])
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}
    for ids, answer in zip(tokens, answers, strict=True):
        is_stopped = answer.finish_reason == "stop"
        assert (ids[-1] == stop) is is_stopped
        assert len(ids) == answer.num_tokens + is_stopped
        assert tiny_tokenizer.decode(ids[: answer.num_tokens], skip_special_tokens=True).startswith(
            answer.text
        )


def test_answering_is_given_up_between_two_tokens(model, tiny_tokenizer, prompts):
    asked = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) == 3

    model.train()
    random = torch.get_rng_state()
    with pytest.raises(StopAskedError):
        generate_answers(model, tiny_tokenizer, prompts, GREEDY, NO_STOP, is_stopped=stopped)
    assert len(asked) == 3
    assert model.training, "the mode that it was in"
    assert torch.equal(torch.get_rng_state(), random)

"""Find a model's head, and prove that it gives the model's own logits, or say why not.

Comes in: a causal language model of transformers, wrapped by peft or not. Goes out: a `Head`, or
the reason why the loss is computed from the model's own logits. Nothing is taken on trust: on a
tiny input the head must give what the model gives.

Shape suffixes: N tokens of the probe, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from luthier.contracts.notice import Notice
from luthier.objectives.head import Head, head_parts, linear_layer, unsupported_head
from luthier.objectives.linear_cross_entropy import work_type

SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier")
"""Names under which a config has a factor or a divisor of the logits; the probe tells which."""
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Names under which a config has the bound of the logits."""
PROBE_LOGITS = (1.0, 10.0, 40.0, 100.0)
"""Largest logit of each token of the probe: small ones tell scales apart, large ones softcaps."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""How much of a token's largest logit may differ, by the type of the model's logits."""
LOW_PRECISION_TOLERANCE = 2e-2


def find_head(model: torch.nn.Module) -> tuple[Head | None, Notice | None]:
    """Find a model's head and check it: decoder and head must give the model's own logits.

    The model runs twice, on four tokens, in evaluation mode and without gradients. Call it in the
    run's autocast, after adapters were added and before training.

    Args:
        model: A causal language model, wrapped by peft or not.

    Returns:
        The head, or None and the reason why the loss is computed from the model's own logits.
    """
    found = _locate(model)
    if isinstance(found, str):
        return None, _plain(found)
    decoder, projection = found
    probe = _run_probe(model, decoder, projection)
    if isinstance(probe, str):
        return None, _plain(probe)
    for scale, softcap in _rules(model):
        if _matches(probe, scale, softcap):
            return Head(model, decoder, projection, scale, softcap), None
    return None, _plain("this model does more to its logits than scale and bound them")


def _plain(reason: str) -> Notice:
    return Notice("head", "loss from hidden states", "loss from full logits", reason)


def _locate(model: torch.nn.Module) -> tuple[torch.nn.Module, torch.nn.Module] | str:
    base: Any = model
    if callable(getattr(model, "get_base_model", None)):
        if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
            return "the adapter changes the input, not the layers"
        base = base.get_base_model()
    projection = getattr(base, "get_output_embeddings", lambda: None)()
    decoder = getattr(base, "base_model", None)
    if projection is None or not isinstance(decoder, torch.nn.Module) or decoder is base:
        return f"{type(base).__name__} names no decoder and no head"
    reason = unsupported_head(projection)
    return reason or (decoder, projection)


@dataclass(frozen=True, slots=True)
class _Probe:
    """Logits of four hidden states: the model's own, and those of a bare linear head."""

    logits: torch.Tensor
    products: torch.Tensor
    tolerance: float


def _run_probe(
    model: torch.nn.Module, decoder: torch.nn.Module, projection: torch.nn.Module
) -> _Probe | str:
    parameter = next(model.parameters())
    ids = torch.arange(1, 1 + len(PROBE_LOGITS), device=parameter.device)[None]
    seen: list[torch.Tensor] = []
    probes: list[tuple[torch.Tensor, torch.Tensor]] = []

    def replace(_module: Any, _inputs: Any, output: Any) -> Any:
        # The model's head gets hidden states that show what it does to large logits, too.
        hidden = getattr(output, "last_hidden_state", None)
        if isinstance(hidden, torch.Tensor):
            seen.append(hidden)
            if hidden.shape[-1] == linear_layer(projection).in_features:
                probes.append(_probe_states(projection, hidden))
                output.last_hidden_state = probes[-1][0]
        return output

    with torch.no_grad(), _evaluating(model):
        with _hooked(decoder, replace):
            logits = model(input_ids=ids, use_cache=False).logits
        if not probes:
            return "its decoder returns no hidden states that the head could take"
        again = decoder(input_ids=ids, use_cache=False).last_hidden_state
    products_NV = probes[0][1]
    low = logits.dtype not in TOLERANCE or seen[0].dtype not in TOLERANCE
    low = low or torch.is_autocast_enabled(ids.device.type)
    tolerance = LOW_PRECISION_TOLERANCE if low else TOLERANCE[logits.dtype]
    if logits.shape[1:] != products_NV.shape or not _close(seen[0], again, tolerance):
        return "its decoder run alone gives other hidden states"
    return _Probe(logits[0].float(), products_NV, tolerance)


def _probe_states(projection: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Hidden states in random directions, as long as makes the largest logits PROBE_LOGITS, and
    # their products. Its own generator, on the CPU: finding a head changes no run's numbers.
    random = torch.Generator().manual_seed(0)
    shape = (1, len(PROBE_LOGITS), hidden.shape[-1])
    states = torch.randn(shape, generator=random).to(hidden)
    wanted = torch.tensor(PROBE_LOGITS, device=hidden.device)
    largest = _products(projection, states[0]).abs().amax(-1)
    states = (states * (wanted / largest.clamp_min(1e-6))[:, None]).to(hidden)
    return states, _products(projection, states[0])


def _products(projection: Any, states_ND: torch.Tensor) -> torch.Tensor:
    # In the model's own type: widening a matrix would cost a copy several times its size.
    parts, work = head_parts(projection, states_ND), work_type(states_ND)
    result_NV = torch.mm(states_ND.to(work), parts.weight.to(work).t()).float()
    if parts.bias is not None:
        result_NV += parts.bias
    if parts.low_rank is not None:
        inputs, matrix = parts.low_rank
        result_NV += torch.mm(inputs.to(work), matrix.to(work).t())
    return result_NV


def _rules(model: Any) -> Iterator[tuple[float, float | None]]:
    config = model.config.get_text_config()
    scales, softcaps = [1.0], [None]
    for name in SCALES:
        value = getattr(config, name, None)
        if isinstance(value, int | float) and value not in (0, 1):
            scales = [float(value), 1 / value, *scales]
    for name in SOFTCAPS:
        value = getattr(config, name, None)
        if isinstance(value, int | float) and value > 0:
            softcaps = [float(value), *softcaps]
    return ((scale, softcap) for scale in scales for softcap in softcaps)


def _matches(probe: _Probe, scale: float, softcap: float | None) -> bool:
    expected = probe.products * scale
    if softcap is not None:
        expected = softcap * torch.tanh(expected / softcap)
    return _close(probe.logits, expected, probe.tolerance)


def _close(values: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    largest = expected.abs().amax(-1, keepdim=True)
    return bool(((values - expected).abs() <= tolerance * largest).all())


@contextmanager
def _hooked(module: torch.nn.Module, hook: Callable[..., Any]) -> Generator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _evaluating(model: torch.nn.Module) -> Generator[None]:
    # Each module goes back to its own mode: some may be held in evaluation mode while others train.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

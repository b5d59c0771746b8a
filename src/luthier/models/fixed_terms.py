"""Low-rank terms that stand in the base's weights and belong to the adapter that is saved.

PiSSA and OLoRA take from the base what the adapter begins with; a stack of adapters is merged into
the base below the one that is trained. Either way the adapter in training is of use only on a base
that no one else has. So each layer remembers what was added to it, and the adapter that is saved
has both: what was trained, and the fixed term in further columns. It opens on the original base.
Which columns are trained stands in a file beside it, so that a run can go on from it.

Shape suffixes: R rank, K width in, M width out.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from luthier.core.errors import ModelError

Term = tuple[torch.Tensor, torch.Tensor]
"""A (R, K) and B (M, R): the weights have B @ A more than those of the original base."""

TRAINED_PART = "trained_part.json"
"""File beside a saved adapter: the LoRA settings of the part of it that is trained."""

_A, _B = "fixed_A", "fixed_B"


@dataclass(frozen=True, slots=True)
class JoinedAdapter:
    """An adapter with its fixed terms, as it is saved.

    Attributes:
        state: By the names of peft's files.
        config: A LoraConfig.
        trained: For the file `TRAINED_PART`.
    """

    state: dict[str, torch.Tensor]
    config: Any
    trained: dict[str, Any]


def begin_from_base(tuned: Any, init: str) -> None:
    """Let adapters begin with a part of the base, which the base loses and each layer remembers.

    Args:
        tuned: A peft model with a new adapter in float32.
        init: `olora`, `pissa` or `pissa_niter_[n]`, as peft calls them.
    """
    name = tuned.active_adapter
    for _, layer in _lora_layers(tuned):
        linear = layer.get_base_layer()
        original = linear.weight.data.clone()
        if init == "olora":
            layer.olora_init(name)
        else:
            layer.pissa_init(name, init)
        # peft's part of the base is the same in float32. When it makes an adapter on a narrow base,
        # it then rounds A and B, but not what it took.
        linear.weight.data = original
        a_RK, b_MR = layer.lora_A[name].weight.data, layer.lora_B[name].weight.data
        _add(linear, a_RK.clone(), -b_MR, layer.scaling[name])


def add_terms(tuned: Any, terms: Mapping[str, Term]) -> None:
    """Add terms to the weights of a model's base, and remember them.

    Args:
        tuned: A peft model with the adapter that is trained.
        terms: By the path of a linear layer within the base.

    Raises:
        ModelError: The adapter's layers differ in their scale.
    """
    scale = _scale(tuned) if terms else 1.0
    for path, (a_RK, b_MR) in terms.items():
        _add(_plain_layer(tuned, path), a_RK, b_MR / scale, scale)


def read_terms(model: Any, folder: Path) -> dict[str, Term]:
    """Return what an adapter adds to each layer; the model is as it was before.

    Args:
        model: The base.
        folder: A LoRA adapter's.

    Raises:
        ModelError: The adapter is more than low-rank products on linear layers.
    """
    from peft import LoraConfig, PeftModel

    of_products: Any = LoraConfig.from_pretrained(str(folder))
    of_products.task_type = None  # peft would look for the head that the adapter was trained with
    tuned = PeftModel.from_pretrained(model, str(folder), config=of_products)
    name = str(tuned.active_adapter)
    config: Any = tuned.peft_config[name]
    _refuse_more_than_products(config, tuned, str(folder))
    terms = {
        path: (
            layer.lora_A[name].weight.detach().float(),
            layer.lora_B[name].weight.detach().float() * layer.scaling[name],
        )
        for path, layer in _lora_layers(tuned)
    }
    tuned.unload()
    return terms


def join_terms(one: Mapping[str, Term], other: Mapping[str, Term]) -> dict[str, Term]:
    """Return the sum of terms, each layer's ranks added."""
    joined = dict(one)
    for path, (a_RK, b_MR) in other.items():
        if path in joined:
            a_RK = torch.cat([joined[path][0], a_RK])
            b_MR = torch.cat([joined[path][1], b_MR], dim=1)
        joined[path] = (a_RK, b_MR)
    return joined


def joined_adapter(
    tuned: Any, state: Mapping[str, torch.Tensor], config: Any
) -> JoinedAdapter | None:
    """Return an adapter that is right on the original base; None where this one is already.

    Args:
        tuned: A peft model.
        state: Its adapter, as peft saves it.
        config: The adapter's LoraConfig, as peft saves it.
    """
    fixed = {path: _remembered(layer) for path, layer in _linear_layers(tuned)}
    fixed = {path: term for path, term in fixed.items() if term is not None}
    if not fixed:
        return None
    trained_paths = [path for path, _ in _lora_layers(tuned)]
    most = max(a_RK.shape[0] for a_RK, _ in fixed.values())
    rank = config.r + most
    joined = dict(state)
    for path in dict.fromkeys([*trained_paths, *fixed]):
        name_a, name_b = _file_names(path)
        linear = _plain_layer(tuned, path)
        width_out, width_in = _shape(linear)
        a_RK, b_MR = fixed.get(path) or (linear.weight.new_zeros(0, 0), None)
        whole_a = torch.zeros(rank, width_in, device=linear.weight.device)
        whole_b = torch.zeros(width_out, rank, device=linear.weight.device)
        if name_a in state:
            whole_a[: config.r] = state[name_a]
            whole_b[:, : config.r] = state[name_b]
        if b_MR is not None:
            whole_a[config.r : config.r + len(a_RK)] = a_RK
            whole_b[:, config.r : config.r + len(a_RK)] = b_MR
        joined[name_a], joined[name_b] = whole_a, whole_b
    trained = {n: getattr(config, n) for n in ("r", "lora_alpha", "use_rslora")}
    trained["target_modules"] = sorted(trained_paths)
    wide = copy.deepcopy(config)
    wide.r, wide.lora_alpha, wide.use_rslora = rank, _scale(tuned) * rank, False
    wide.target_modules = sorted({*trained_paths, *fixed})
    wide.init_lora_weights = True
    return JoinedAdapter(joined, wide, trained)


def trained_part(folder: Path) -> dict[str, Any] | None:
    """Return the settings of the trained part of a saved adapter; None where all of it is."""
    path = folder / TRAINED_PART
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def go_on_from_joined(model: Any, folder: Path, trained: Mapping[str, Any]) -> Any:
    """Build the peft model that `joined_adapter` was made of, the same to the last bit.

    Args:
        model: The original base; changed in place.
        folder: Of the saved adapter.
        trained: What `trained_part` returned.
    """
    from peft import LoraConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict

    config: Any = LoraConfig.from_pretrained(str(folder))
    config.inference_mode, config.base_model_name_or_path = False, None
    for name, value in trained.items():
        setattr(config, name, value)
    tuned = get_peft_model(model, config)
    saved = load_peft_weights(str(folder), device="cpu")
    rank, scale = trained["r"], _scale(tuned)
    own = dict(saved)
    for path in {name.rsplit(".lora_", 1)[0] for name in saved if ".lora_A." in name}:
        path = path.removeprefix(_PREFIX)
        name_a, name_b = _file_names(path)
        whole_a, whole_b = own.pop(name_a), own.pop(name_b)
        layer = _plain_layer(tuned, path)
        device = layer.weight.device
        _add(layer, whole_a[rank:].to(device), whole_b[:, rank:].contiguous().to(device), scale)
        if path in trained["target_modules"]:
            own[name_a], own[name_b] = whole_a[:rank], whole_b[:, :rank].contiguous()
    set_peft_model_state_dict(tuned, own)
    return tuned


_PREFIX = "base_model.model."


def _file_names(path: str) -> tuple[str, str]:
    return f"{_PREFIX}{path}.lora_A.weight", f"{_PREFIX}{path}.lora_B.weight"


def _lora_layers(tuned: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for path, module in tuned.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield path, module


def _linear_layers(tuned: Any) -> Iterator[tuple[str, Any]]:
    for path, module in tuned.get_base_model().named_modules():
        if not path.endswith(".base_layer"):
            yield path, getattr(module, "base_layer", module)


def _plain_layer(tuned: Any, path: str) -> Any:
    module = tuned.get_base_model().get_submodule(path)
    return getattr(module, "base_layer", module)


def _scale(tuned: Any) -> float:
    scales = {layer.scaling[tuned.active_adapter] for _, layer in _lora_layers(tuned)}
    if len(scales) != 1:
        raise ModelError(
            "the layers of the adapter that is trained have scales of their own",
            mend="Merge the adapters with peft, and train a new one on the merged model.",
        )
    return scales.pop()


def _refuse_more_than_products(config: Any, tuned: Any, where: str) -> None:
    layers = [layer for _, layer in _lora_layers(tuned)]
    reasons = {
        "DoRA": config.use_dora,
        "modules that are trained whole": config.modules_to_save,
        "trained tokens": config.trainable_token_indices,
        "biases": config.bias != "none" or config.lora_bias,
        "an adapter on embeddings": any(len(layer.lora_embedding_A) for layer in layers),
    }
    found = [reason for reason, is_there in reasons.items() if is_there]
    if found:
        raise ModelError(
            f"this adapter has {found[0]}, which can't stand in an adapter beside another",
            where=where,
            mend="Merge it with peft, and name the merged model as model_name_or_path.",
        )


def _shape(linear: Any) -> tuple[int, int]:
    # transformers' Conv1D holds its matrix the other way round.
    rows, columns = linear.weight.shape
    return (rows, columns) if isinstance(linear, torch.nn.Linear) else (columns, rows)


def _add(linear: Any, a_RK: torch.Tensor, b_MR: torch.Tensor, scale: float) -> None:
    # In float32, then rounded to the base's type: the same at the start and in a run that goes on.
    product_MK = (scale * b_MR) @ a_RK
    if not isinstance(linear, torch.nn.Linear):
        product_MK = product_MK.t()
    weight = linear.weight
    weight.data = (weight.data.float() + product_MK).to(weight.dtype)
    _remember(linear, a_RK, b_MR)


def _remember(linear: Any, a_RK: torch.Tensor, b_MR: torch.Tensor) -> None:
    linear.register_buffer(_A, a_RK, persistent=False)
    linear.register_buffer(_B, b_MR, persistent=False)


def _remembered(linear: Any) -> Term | None:
    a_RK = getattr(linear, _A, None)
    return None if a_RK is None else (a_RK, getattr(linear, _B))

"""A decoder seen as two: the layers under the first trained one, and those from there on.

In: a decoder of transformers in which some layers are trained. Out: two decoders of the same class
that share its modules, or the reason why it can't be cut. Nothing is copied and nothing of the
model is changed, so what is saved keeps its names. Nothing is taken on trust either: on a small
batch the two must give what the whole gives, and the lower one must give a row the same hidden
states in training as in evaluation, alone as beside others.

Shape suffixes: B rows, L tokens, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

_ROW_BY_ITSELF = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers that look at a token's distance alone, wherever its row stands in a batch."""
_LENGTHS = (12, 7)
_SAME_OPERATIONS = 1e-5
_OTHER_SHAPES = {torch.float32: 1e-3, torch.float64: 1e-3}
_OTHER_SHAPES_LOW = 5e-2
"""By how much a token's hidden state may differ, as a share of its largest value: where the same
operations run on the same numbers, and where products of other shapes round in another way."""


@dataclass(frozen=True, slots=True)
class LayerSplit:
    """A decoder in two parts that share its modules.

    Attributes:
        whole: The decoder.
        lower: Embedding and the first `depth` layers, with a `_Tap` as one more.
        upper: The other layers and what follows them.
        depth: How many layers are below.
        token_bytes: What the hidden state of one token takes between the two.
    """

    whole: Any
    lower: Any
    upper: Any
    depth: int
    token_bytes: int = 0

    def run_lower(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return the hidden states (B, L, D) that the first upper layer takes.

        Args:
            inputs: The decoder's keyword arguments.
        """
        self.lower.training = self.whole.training
        self.lower(**inputs, use_cache=False)
        return self.lower.layers[-1].take()

    def run_upper(self, hidden_BLD: torch.Tensor, inputs: Mapping[str, Any]) -> Any:
        """Return the decoder's output from the hidden states that `run_lower` returned.

        Args:
            hidden_BLD: The hidden states; those of padding may be any numbers.
            inputs: The decoder's keyword arguments; the token ids among them aren't read.
        """
        layout = {name: value for name, value in inputs.items() if name != "input_ids"}
        self.upper.training = self.whole.training
        return self.upper(inputs_embeds=hidden_BLD, **layout, use_cache=False)


class _Tap(torch.nn.Module):
    """Stands behind the lower layers and keeps what they gave.

    A hook on the last of them would do the same, but layers may be compiled: each call with a hook
    of its own would be compiled anew.
    """

    def __init__(self, replaced: Any) -> None:
        super().__init__()
        # Some classes ask each layer which mask it wants.
        self.attention_type = getattr(replaced, "attention_type", None)
        self._seen: torch.Tensor | None = None

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self._seen = hidden_states
        return hidden_states

    def take(self) -> torch.Tensor:
        seen, self._seen = self._seen, None
        assert seen is not None, "the lower layers have not run"
        return seen


def frozen_depth(decoder: Any) -> int:
    """Return how many layers, counted from the lowest, hold no trained parameter."""
    layers = getattr(decoder, "layers", ())
    trained = [any(p.requires_grad for p in layer.parameters()) for layer in layers]
    return trained.index(True) if True in trained else len(trained)


def split_decoder(decoder: Any, packed: bool = False) -> LayerSplit | str:
    """Cut a decoder below its first trained layer, and prove that nothing is lost.

    The model runs a few times on two short rows. Call it in the run's autocast. Its mode and the
    random state stay as they were.

    Args:
        decoder: Layers in a list named `layers`, at least one of them trained.
        packed: Whether batches are packed rows.

    Returns:
        The two parts, or in one clause why the lower layers must run each time.
    """
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        return f"{type(decoder).__name__} has no list of layers that could be cut"
    depth = frozen_depth(decoder)
    if depth in (0, len(layers)):
        return "no layer is frozen below a trained one"
    obstacle = _dropout(decoder.layers[:depth]) or _looks_beside(decoder.config)
    if obstacle is not None:
        return obstacle
    try:
        lower, upper = _part(decoder, 0, depth + 1), _part(decoder, depth, len(layers))
        lower.layers[-1] = _Tap(layers[depth])
        return _proved(LayerSplit(decoder, lower, upper, depth), packed)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Whatever a class does that can't be built of parts, it is trained as a whole.
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"{type(decoder).__name__} can't be cut: {cause}"


def _dropout(layers: torch.nn.ModuleList) -> str | None:
    for module in layers.modules():
        found = {name: value for name, value in vars(module).items() if "drop" in name}
        if isinstance(module, torch.nn.Dropout):
            found["dropout"] = module.p
        for name, value in found.items():
            if isinstance(value, float) and value > 0:
                return f"its frozen layers have dropout ({name} {value}), new at each pass"
    return None


def _looks_beside(config: Any) -> str | None:
    """Return why a row's hidden states may depend on the batch that it stands in, if they may."""
    kinds = set(getattr(config, "layer_types", None) or ()) - _ROW_BY_ITSELF
    if kinds:
        return f"layers of type {', '.join(sorted(kinds))} may depend on a row's place in its batch"
    for kind in _rope_types(getattr(config, "rope_parameters", None) or {}):
        if "dynamic" in kind or kind == "longrope":
            return f"its positions ({kind}) depend on the longest row of the batch"
    return None


def _rope_types(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from _rope_types(value)
        elif name == "rope_type" and isinstance(value, str):
            yield value


def _part(decoder: Any, start: int, stop: int) -> Any:
    """Return a decoder of the same class that has some of the layers, and shares all modules."""
    config = copy.deepcopy(decoder.config)
    config.num_hidden_layers = stop - start
    # What the class reads for each layer: its kind of attention, of positions, of MLP.
    lists = {
        name: value[start:stop]
        for name, value in vars(decoder.config).items()
        if isinstance(value, list | tuple) and len(value) == len(decoder.layers)
    }
    for name, value in lists.items():
        setattr(config, name, value)
    # As transformers itself builds a model before it reads the weights: without any memory.
    with torch.device("meta"):
        part = type(decoder)(config)
    if any(getattr(part.config, name) != value for name, value in lists.items()):
        raise ValueError("its class changes the kinds of layers with their number")
    own = chain(decoder.named_parameters(recurse=False), decoder.named_buffers(recurse=False))
    for name, module_or_tensor in chain(decoder.named_children(), own):
        setattr(part, name, module_or_tensor)
    part.layers = decoder.layers[start:stop]
    if any(tensor.is_meta for tensor in chain(part.parameters(), part.buffers())):
        raise ValueError("a part of it is made from the number of layers")
    return part


def _proved(split: LayerSplit, packed: bool) -> LayerSplit | str:
    whole = split.whole
    batch, alone = _trial(whole, packed)
    with _as_it_was(whole):
        whole.eval()
        with torch.no_grad():
            expected = _rows(whole(**batch, use_cache=False).last_hidden_state)
            hidden = split.run_lower(batch)
            # The cache fills padding with zeros.
            kept = _laid_out(_rows(hidden), hidden)
            again = _rows(split.run_upper(kept, batch).last_hidden_state)
            single = split.run_lower(alone)[0]
        whole.train()
        trained = split.run_lower(batch)
    if not _close(torch.cat(again), torch.cat(expected), _SAME_OPERATIONS):
        return "its upper layers alone give other hidden states"
    if _learns(trained, whole):
        return f"something below layer {split.depth} is trained too"
    if not _close(torch.cat(_rows(trained)), torch.cat(_rows(hidden)), _SAME_OPERATIONS):
        return "its frozen layers have dropout or noise, new at each pass"
    rounding = _OTHER_SHAPES.get(hidden.dtype, _OTHER_SHAPES_LOW)
    if torch.is_autocast_enabled(hidden.device.type):
        rounding = _OTHER_SHAPES_LOW
    if not _close(single, _rows(hidden)[1], rounding):
        return "a row's hidden states depend on the rows beside it"
    token_bytes = hidden.shape[-1] * hidden.element_size()
    return LayerSplit(whole, split.lower, split.upper, split.depth, token_bytes)


def _learns(hidden_BLD: torch.Tensor, decoder: torch.nn.Module) -> bool:
    # That they carry a gradient says too little: where activations are recomputed, transformers
    # lets the embedding's output ask for one.
    parameters = [p for p in decoder.parameters() if p.requires_grad]
    if not hidden_BLD.requires_grad:
        return False
    found: tuple[Any, ...] = torch.autograd.grad(
        hidden_BLD.float().sum(), parameters, allow_unused=True
    )
    return any(gradient is not None for gradient in found)


def _trial(decoder: Any, packed: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a batch of two rows, and its second row alone."""
    embedding = decoder.get_input_embeddings()
    device = embedding.weight.device
    random = torch.Generator().manual_seed(0)
    # Its own generator: a run's numbers don't depend on whether it was tried.
    drawn = torch.randint(embedding.num_embeddings, (sum(_LENGTHS),), generator=random)
    first, second = (ids[None] for ids in drawn.to(device).split(_LENGTHS))
    long, short = _LENGTHS
    if packed:
        from luthier.models.segments import packed_inputs

        ids = torch.cat([first, second], dim=1)
        return packed_inputs(_flat(ids, _LENGTHS)), packed_inputs(_flat(second, (short,)))
    ids = torch.cat([first, torch.nn.functional.pad(second, (0, long - short))])
    mask = torch.ones_like(ids)
    mask[1, short:] = 0
    return (
        {"input_ids": ids, "attention_mask": mask},
        {"input_ids": second, "attention_mask": torch.ones_like(second)},
    )


def _flat(ids: torch.Tensor, lengths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    positions = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
    ends = torch.tensor([0, *lengths], device=ids.device).cumsum(0)
    return {"input_ids": ids, "position_ids": positions[None], "cu_seqlens": ends}


def _rows(hidden_BLD: torch.Tensor) -> list[torch.Tensor]:
    """Return the two rows of the trial without padding, whether it was packed or padded."""
    if len(hidden_BLD) == 1:
        return list(hidden_BLD[0].split(_LENGTHS))
    return [row[:length] for row, length in zip(hidden_BLD, _LENGTHS, strict=True)]


def _laid_out(rows: list[torch.Tensor], like_BLD: torch.Tensor) -> torch.Tensor:
    if len(like_BLD) == 1:
        return torch.cat(rows)[None]
    laid_out = torch.zeros_like(like_BLD)
    for number, row in enumerate(rows):
        laid_out[number, : len(row)] = row
    return laid_out


def _close(found_TD: torch.Tensor, expected_TD: torch.Tensor, tolerance: float) -> bool:
    largest = expected_TD.abs().amax(-1, keepdim=True)
    return bool(((found_TD - expected_TD).abs() <= tolerance * largest).all())


@contextmanager
def _as_it_was(decoder: torch.nn.Module) -> Generator[None]:
    # Each module goes back to its own mode: some may be held in evaluation mode while others train.
    modes = [(module, module.training) for module in decoder.modules()]
    device = next(decoder.parameters()).device
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for module, training in modes:
            module.training = training

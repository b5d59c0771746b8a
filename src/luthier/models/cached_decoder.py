"""A decoder that computes its frozen layers once for each row, and from then on remembers them.

In: the keyword arguments of a padded or packed batch. Out: what the decoder gives for them. A row
is known by a hash of its token ids, so batches need carry no row numbers, and training and
evaluation share what they know.

How exact is it? A batch of which no row is known runs as it stands: its numbers are those of the
plain decoder to the last bit. A batch of known rows takes the hidden states that their first batch
gave. In another batch of another shape the plain decoder would round a few products differently
(in float32 by about 1e-7 of a value), as it does for each new mix of rows. So results equal the
plain ones exactly where the batches are the same in each epoch, and otherwise to rounding. A run
that goes on remembers the same numbers if it meets the rows in the same batches (`remember`).

Shape suffixes: B rows, L tokens of a row, D width, T = B x L.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from luthier.models.activation_store import ActivationStore, Bytes
from luthier.models.layer_split import LayerSplit

Span = tuple[int, int]
"""Where a row's tokens stand in a batch that is seen as one sequence of T tokens."""


class CachedDecoder(torch.nn.Module):
    """Takes a decoder's place in front of the head. It has no parameters of its own."""

    def __init__(
        self, split: LayerSplit, store: ActivationStore, keep_training_rows: bool = True
    ) -> None:
        """Begin with nothing remembered.

        Args:
            split: The decoder in two parts.
            store: Where hidden states are kept.
            keep_training_rows: False where each is seen only once: only evaluation is remembered.
        """
        super().__init__()
        self.split = split
        self.store = store
        self.keep_training_rows = keep_training_rows
        self.paused = False
        """While it is true, the plain decoder runs, and nothing is read or kept."""
        self.num_computed = 0
        """Tokens that went through the frozen layers."""
        self.num_read = 0
        """Tokens that didn't have to."""

    def forward(self, use_cache: bool = False, **inputs: Any) -> Any:
        """Return the decoder's output.

        Args:
            use_cache: Whether keys and values are kept, as in generation: the plain decoder's task.
            inputs: `packed_inputs` of a packed batch, or `input_ids` (B, L) and an
                `attention_mask` that is 0 behind each row. Others go to the plain decoder.
        """
        spans = None if use_cache or self.paused else find_spans(inputs)
        if spans is None:
            return self.split.whole(**inputs, use_cache=use_cache)
        return self.split.run_upper(self._hidden_states(inputs, spans), inputs)

    def remember(self, **inputs: Any) -> None:
        """Compute and keep what isn't known of a batch, without the layers above.

        Args:
            inputs: As for `forward`; of other batches nothing is kept.
        """
        spans = find_spans(inputs)
        if spans is not None:
            self._hidden_states(inputs, spans)

    def _hidden_states(self, inputs: Mapping[str, Any], spans: Sequence[Span]) -> torch.Tensor:
        ids_BL = inputs["input_ids"]
        ids_T = ids_BL.flatten().cpu().numpy()
        keys = [_key(ids_T[start:stop].tobytes()) for start, stop in spans]
        missing = [number for number, key in enumerate(keys) if key not in self.store]
        if len(missing) == len(spans):
            return self._compute(inputs, spans, keys)
        hidden_TD = self._read(len(ids_T), spans, keys, ids_BL.device)
        if missing:
            part, part_spans = choose_rows(inputs, spans, missing)
            found_TD = self._compute(part, part_spans, [keys[n] for n in missing]).flatten(0, 1)
            for number, (start, stop) in zip(missing, part_spans, strict=True):
                hidden_TD[slice(*spans[number])] = found_TD[start:stop]
        return hidden_TD.unflatten(0, ids_BL.shape)

    @torch.no_grad()
    def _compute(
        self, inputs: Mapping[str, Any], spans: Sequence[Span], keys: Sequence[bytes]
    ) -> torch.Tensor:
        hidden_BLD = self.split.run_lower(inputs)
        self.num_computed += sum(stop - start for start, stop in spans)
        self._dtype, self._width = hidden_BLD.dtype, hidden_BLD.shape[-1]
        if self.keep_training_rows or not self.split.whole.training:
            on_cpu_TD = hidden_BLD.flatten(0, 1).cpu().contiguous()
            for key, (start, stop) in zip(keys, spans, strict=True):
                self.store.put(key, _bytes_of(on_cpu_TD[start:stop]))
        return hidden_BLD

    def _read(
        self, num_tokens: int, spans: Sequence[Span], keys: Sequence[bytes], device: torch.device
    ) -> torch.Tensor:
        """Return the hidden states of the known rows, and zeros for all else, (T, D)."""
        pinned = device.type == "cuda"
        hidden_TD = torch.zeros(num_tokens, self._width, dtype=self._dtype, pin_memory=pinned)
        for key, (start, stop) in zip(keys, spans, strict=True):
            if key in self.store:
                self.store.read(key, _bytes_of(hidden_TD[start:stop]))
                self.num_read += stop - start
        return hidden_TD.to(device, non_blocking=True)


def find_spans(inputs: Mapping[str, Any]) -> list[Span] | None:
    """Return where each row's tokens stand, or None for a batch in which that isn't plain to see.

    Args:
        inputs: A decoder's keyword arguments.
    """
    ends = inputs.get("cu_seq_lens_q")
    if ends is not None:
        places = ends.tolist()
        return list(pairwise(places))
    mask_BL = inputs.get("attention_mask")
    if mask_BL is None or "position_ids" in inputs:
        return None
    mask_BL = mask_BL.cpu()
    if not bool((mask_BL[:, 0] == 1).all() and (mask_BL[:, 1:] <= mask_BL[:, :-1]).all()):
        return None
    starts = range(0, mask_BL.numel(), mask_BL.shape[1])
    lengths = mask_BL.sum(1).tolist()
    return [(start, start + length) for start, length in zip(starts, lengths, strict=True)]


def choose_rows(
    inputs: Mapping[str, Any], spans: Sequence[Span], chosen: Sequence[int]
) -> tuple[dict[str, Any], list[Span]]:
    """Make a batch of some rows of a batch.

    Args:
        inputs: What `find_spans` found the rows in.
        spans: Where they stand.
        chosen: Numbers of the rows to take.

    Returns:
        The smaller batch, packed or padded as the other was, and where its rows stand.
    """
    ids_BL = inputs["input_ids"]
    lengths = [spans[number][1] - spans[number][0] for number in chosen]
    longest = max(lengths)
    if "cu_seq_lens_q" not in inputs:
        rows = torch.tensor([spans[number][0] // ids_BL.shape[1] for number in chosen])
        rows = rows.to(ids_BL.device)
        part = {name: inputs[name][rows, :longest] for name in ("input_ids", "attention_mask")}
        return part, [(n * longest, n * longest + length) for n, length in enumerate(lengths)]
    tokens = torch.cat([torch.arange(*spans[number]) for number in chosen]).to(ids_BL.device)
    ends = torch.tensor([0, *lengths]).cumsum(0)
    places = ends.tolist()
    ends = ends.to(inputs["cu_seq_lens_q"])
    part = {name: inputs[name][:, tokens] for name in ("input_ids", "position_ids")}
    part |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
    part |= {"max_length_q": longest, "max_length_k": longest}
    return part, list(pairwise(places))


def _key(ids: bytes) -> bytes:
    return hashlib.blake2b(ids, digest_size=16).digest()


def _bytes_of(values: torch.Tensor) -> Bytes:
    """Return the memory of a contiguous CPU tensor as bytes, without a copy."""
    return values.detach().view(torch.uint8).numpy()

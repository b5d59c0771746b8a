"""`freeze`: some layers are trained whole, or some modules in them, and the rest stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from luthier.core.errors import SettingsError
from luthier.models.module_names import check_modules, is_named, layer_number
from luthier.models.reward_model import SCORE, kind_of
from luthier.models.settings import FreezeTuning

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def freeze_layers(model: PreTrainedModel, tuning: FreezeTuning) -> PreTrainedModel:
    """Make the chosen layers trainable, and nothing else but the extra modules.

    The head of a reward model is always trained.

    Args:
        model: Changed in place.
        tuning: Which layers, which modules in them, and which beside them.

    Raises:
        SettingsError: A layer or a module is not there.
    """
    owned = list(_owned_parameters(model))
    numbers = {path: layer_number(f"{path}.") for path, _ in owned}
    chosen = _chosen_layers(tuning, {n for n in numbers.values() if n is not None})
    extra = list(tuning.freeze_extra_modules or [])
    outside = {path for path, number in numbers.items() if number is None}
    check_modules("freeze_extra_modules", extra, outside, "module outside its layers")
    within = _parts_of_layers(path for path, number in numbers.items() if number in chosen)
    parts = tuning.freeze_trainable_modules
    if parts != "all":
        check_modules("freeze_trainable_modules", parts, within, "module in its layers")
    model.requires_grad_(False)
    for path, parameter in owned:
        if numbers[path] is None:
            is_trained = any(is_named(path, name) for name in extra)
        else:
            is_trained = numbers[path] in chosen and (
                parts == "all" or any(f".{name}." in f".{path}." for name in parts)
            )
        if is_trained:
            # Of two names of one tied weight, either is enough: no later name takes it back.
            parameter.requires_grad_(True)
    if kind_of(model) == "reward":
        # It begins at random: without it the layers would be fitted to that.
        getattr(model, SCORE).requires_grad_(True)
    return model


def _chosen_layers(tuning: FreezeTuning, layers: set[int]) -> set[int]:
    if tuning.freeze_chosen_layers is not None:
        missing = [n for n in tuning.freeze_chosen_layers if n not in layers]
        if missing:
            raise SettingsError(
                f"freeze_chosen_layers names layer {missing[0]}, and the model has {len(layers)} "
                "layers",
                mend=f"Layers are counted from 0 to {len(layers) - 1}.",
            )
        return set(tuning.freeze_chosen_layers)
    count = tuning.freeze_trainable_layers
    if abs(count) > len(layers):
        raise SettingsError(
            f"freeze_trainable_layers is {count}, and the model has {len(layers)} layers",
            mend=f"Give a number from -{len(layers)} to {len(layers)}.",
        )
    return set(sorted(layers)[-count:] if count > 0 else sorted(layers)[:-count])


def _parts_of_layers(paths: Iterator[str]) -> set[str]:
    """Return the paths of modules that own parameters, and of the modules that those stand in."""
    parts: set[str] = set()
    for path in paths:
        names = path.split(".")
        # Experts of a mixture are numbered too, behind the layer.
        layer = min(i for i, name in enumerate(names) if name.isdigit())
        parts |= {".".join(names[:end]) for end in range(layer + 2, len(names) + 1)}
    return parts


def _owned_parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    # Each parameter with the path of the module that owns it; a tied one under all its names.
    for path, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            yield path, parameter

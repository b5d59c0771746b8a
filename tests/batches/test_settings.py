"""What the batch settings accept."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from luthier.batches.settings import BatchSettings


def test_defaults() -> None:
    settings = BatchSettings()
    assert settings.per_device_train_batch_size == settings.gradient_accumulation_steps == 1
    assert settings.per_device_eval_batch_size == 8
    assert settings.train_batch_size == 16
    assert not settings.group_by_length
    assert settings.packing == "auto"
    assert settings.packing_window == 1024
    assert settings.dataloader_num_workers == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("per_device_train_batch_size", 0),
        ("per_device_train_batch_size", "many"),
        ("train_batch_size", 0),
        ("per_device_eval_batch_size", -1),
        ("gradient_accumulation_steps", 0),
        ("dataloader_num_workers", -1),
        ("group_by_length", "often"),
        ("packing", 2),
        ("packing", "neat"),
        ("packing", None),
        ("packing_window", 0),
    ],
)
def test_impossible_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        BatchSettings.model_validate({name: value})


@pytest.mark.parametrize(
    ("value", "is_packed"), [(False, False), (True, True), ("padding_free", True)]
)
def test_packing_is_off_on_or_padding_free(value: object, is_packed: bool) -> None:
    settings = BatchSettings.model_validate({"packing": value})
    assert (settings.packing, settings.is_packed) == (value, is_packed)


def test_whether_auto_packs_is_not_for_the_settings_alone_to_say() -> None:
    with pytest.raises(AssertionError, match="packing: auto is settled before batches are built"):
        assert BatchSettings().is_packed


def test_packing_of_1_is_true() -> None:
    """The order asks whether it *is* True: a 1 that stayed a 1 would mean padding_free."""
    assert BatchSettings.model_validate({"packing": 1}).packing is True


def test_a_batch_holds_a_micro_batch_or_with_auto_the_whole_step() -> None:
    plain = BatchSettings(per_device_train_batch_size=4)
    assert (plain.is_auto, plain.rows_per_batch) == (False, 4)
    auto = BatchSettings(per_device_train_batch_size="auto", train_batch_size=6)
    assert (auto.is_auto, auto.rows_per_batch) == (True, 6)

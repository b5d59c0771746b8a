from __future__ import annotations

import pytest

from luthier.core.errors import SettingsError
from luthier.export import registry
from luthier.export.adapter import AdapterTarget
from luthier.export.hf import HfTarget
from luthier.export.registry import TARGETS, read_targets


def test_targets_are_read_by_name_and_type_each_once():
    wanted = read_targets(["hf", "HF:BFloat16", "adapter", "hf:bfloat16"])
    assert [one.label for one in wanted] == ["hf", "hf-bfloat16", "adapter"]
    assert [type(one.target) for one in wanted] == [HfTarget, HfTarget, AdapterTarget]
    assert [one.kind for one in wanted] == [None, "bfloat16", None]


@pytest.mark.parametrize(
    ("names", "problem", "mend"),
    [
        (["adaptor"], "unknown target 'adaptor'", "Did you mean adapter?"),
        (["zip"], "unknown target 'zip'", "Known: adapter, "),
        (["hf:float15"], "hf has no type 'float15'", "Did you mean float"),
        (["adapter:Q8_0"], "adapter has no types", "Write --to adapter"),
        ([], "no target is named", "Known: hf"),
    ],
)
def test_what_is_unknown_is_said_with_what_is_known(names, problem, mend):
    with pytest.raises(SettingsError, match=problem) as error:
        read_targets(names)
    assert mend in str(error.value.mend)


def test_a_model_behind_the_targets_is_told_its_place(tmp_path):
    with pytest.raises(SettingsError, match="unknown target") as error:
        read_targets(["hf", str(tmp_path)])
    assert error.value.mend == "Name the model before --to."


def test_a_target_may_need_a_type(monkeypatch):
    class Needy(HfTarget):
        needs_type = True

    monkeypatch.setattr(registry, "TARGETS", {"hf": Needy})
    with pytest.raises(SettingsError, match="hf needs a type") as error:
        read_targets(["hf"])
    assert "hf:float32" in str(error.value.mend)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_keeps_the_protocol(name):
    target = TARGETS[name]()
    assert target.name == name
    assert isinstance(target.needs_weights, bool)
    for kind in target.types() or (None,):
        assert 0 < target.bits(kind) <= 64
    assert not target.needs_type or target.types()

"""Two manifests held against each other: what is the same, what is not, what that can change."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from luthier.recipes.run_differences import EFFECTS, Difference, compare_manifests, input_facts

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
MANIFEST: dict[str, Any] = {
    "settings_sha256": A,
    "luthier": {"version": "0.1.0", "source_sha256": A, "commit": "1", "diff_sha256": B},
    "data": {
        "inputs": {
            "train": [
                {"name": "rows.json", "part": None, "sha256": A, "bytes": 1},
                {"name": "mix", "part": "b.json", "sha256": B},
            ],
            "val": [{"name": "owner/name", "part": None, "fingerprint": "f"}],
        },
        "tokenizer": A,
        "template_sha256": B,
    },
    "model": {"config_sha256": {"config.json": A}, "weights_sha256": {"model.safetensors": B}},
    "packages": {"luthier": "0.1.0", "torch": "2.13.0", "transformers": "5.1", "jinja2": "3.1"},
    "machine": {
        "os": "Linux-6",
        "python": "3.11.7",
        "cpu": {"name": "Test CPU", "architecture": "x86_64"},
        "gpus": [{"name": "NVIDIA X", "cuda": "12.8", "driver": None}],
    },
    "computing": {"precision": "fp32", "threads": 2, "device": "cpu"},
    "environment": {"OMP_NUM_THREADS": "2"},
}


def changed(**changes: Any) -> dict[str, Any]:
    """Return the manifest with values put in by path: `machine__os="x"`; None removes."""
    manifest = copy.deepcopy(MANIFEST)
    for path, value in changes.items():
        *way, last = path.split("__")
        place = manifest
        for part in way:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return manifest


def test_the_same_manifest_has_no_difference():
    today = compare_manifests(MANIFEST, copy.deepcopy(MANIFEST))
    assert today.differences == ()
    assert today.unrecorded == ()
    assert today.changed_data == ()
    names = 1 + 2 + 2 + 1 + 3 + 2 + 3 + 4 + 2 + 1
    assert today.num_same == names


@pytest.mark.parametrize(
    ("change", "title", "then", "now", "effect"),
    [
        ({"settings_sha256": B}, "settings", A, B, "everything"),
        ({"luthier__version": "0.2.0"}, "luthier version", "0.1.0", "0.2.0", "everything"),
        ({"model__weights_sha256": {}}, "model model.safetensors", B, "not there", "everything"),
        ({"computing__precision": "bf16"}, "precision", "fp32", "bf16", "everything"),
        ({"data__tokenizer": C}, "tokenizer", A, C, "the data"),
        ({"data__date": "2026-01-01"}, "tokenizer date in the template", "not there",
         "2026-01-01", "the data"),
        ({"packages__transformers": "5.2"}, "package transformers", "5.1", "5.2", "everything"),
        ({"packages__jinja2": "3.2"}, "package jinja2", "3.1", "3.2", "the data"),
        ({"packages__torch": None}, "package torch", "2.13.0", "not installed", "the last bits"),
        ({"machine__python": "3.12"}, "python", "3.11.7", "3.12", "the last bits"),
        ({"machine__os": "Linux-7"}, "system", "Linux-6", "Linux-7", "the last bits"),
        ({"machine__cpu__name": "Y"}, "processor", "Test CPU (x86_64)", "Y (x86_64)",
         "the last bits"),
        ({"machine__gpus": []}, "gpu 0", "NVIDIA X, cuda 12.8", "not there", "the last bits"),
        ({"computing__threads": 4}, "torch threads", "2", "4", "the last bits"),
        ({"environment__OMP_NUM_THREADS": None}, "variable OMP_NUM_THREADS", "2", "not set",
         "the last bits"),
    ],
)  # fmt: skip
def test_each_difference_has_its_name_values_and_effect(
    change: dict[str, Any], title: str, then: str, now: str, effect: str
):
    (found,) = compare_manifests(MANIFEST, changed(**change)).differences
    assert (found.title, found.then, found.now, found.effect) == (title, then, now, effect)


def test_the_worst_stand_first():
    other = changed(machine__os="x", data__tokenizer=C, settings_sha256=B, machine__python="4")
    effects = [found.effect for found in compare_manifests(MANIFEST, other).differences]
    assert effects == ["everything", "the data", "the last bits", "the last bits"]
    assert sorted(effects, key=EFFECTS.index) == effects


def test_changed_and_missing_files_of_the_data():
    inputs = {
        "train": [{"name": "rows.json", "part": None, "sha256": C}],
        "val": [
            {"name": "owner/name", "part": None, "fingerprint": "f"},
            {"name": "new.json", "part": None, "sha256": A},
        ],
    }
    today = compare_manifests(MANIFEST, changed(data__inputs=inputs))
    assert [(one.name, one.then, one.now) for one in today.changed_data] == [
        ("train: mix/b.json", B, "not there"),
        ("train: rows.json", A, C),
        ("val: new.json", "not there", A),
    ]


def test_where_steps_cleaned_the_data_their_inputs_count():
    corpus = {"inputs": {"train": [{"name": "raw", "sha256": A}]}, "packages": {"rensa": "1"}}
    then = changed() | {"corpus": corpus}
    now = changed(data__inputs={}) | {"corpus": {**corpus, "packages": {}}}
    (found,) = compare_manifests(then, now).differences
    assert found == Difference("cleaning package", "rensa", "1", "not installed", "the data")


def test_the_same_source_under_another_commit_is_the_same_luthier():
    other = changed(luthier__commit="2", luthier__diff_sha256=None)
    assert compare_manifests(MANIFEST, other).differences == ()
    other["luthier"]["source_sha256"] = C
    names = [found.name for found in compare_manifests(MANIFEST, other).differences]
    assert names == ["commit", "diff", "source"]


def test_a_manifest_that_records_less_is_compared_by_what_it_has():
    old = {
        "luthier": {"version": "0.1.0", "commit": "1"},
        "model": {"config_sha256": A, "weight_bytes": {"model.safetensors": 1}},
        "machine": MANIFEST["machine"],
    }
    today = compare_manifests(old, changed(luthier__diff_sha256=None))
    assert today.differences == ()
    assert today.unrecorded == (
        *("settings", "model", "precision", "data", "tokenizer", "package", "torch", "variable"),
    )


def test_a_run_that_went_on_with_other_settings_is_told():
    then = changed() | {"earlier": [{"settings_sha256": A}, {"settings_sha256": C}, {}]}
    now = changed() | {"earlier": [{"settings_sha256": A}, {"settings_sha256": A}, {}]}
    (found,) = compare_manifests(then, now).differences
    assert (found.title, found.then, found.now) == ("settings before stop 2", C, A)


def test_an_adapter_is_told_from_the_model():
    then = changed() | {"adapter": {"weights_sha256": {"model.safetensors": A}}}
    (found,) = compare_manifests(then, MANIFEST).differences
    assert (found.title, found.effect) == ("model adapter model.safetensors", "everything")


def test_inputs_by_name():
    assert input_facts(MANIFEST["data"]["inputs"]) == {
        "train: rows.json": A,
        "train: mix/b.json": B,
        "val: owner/name": "f",
    }
    assert input_facts({}) == {}

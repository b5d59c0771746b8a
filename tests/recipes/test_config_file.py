"""Settings files: what each language means, where each value stands, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import SettingsError
from luthier.recipes.config_file import Entry, read_config_file

WriteFile = Callable[[str, "str | bytes"], Path]

SECTIONS = frozenset({"run", "model"})


@pytest.fixture
def read(write_file: WriteFile):
    def read(text: str | bytes, name: str = "a.yaml") -> list[Entry]:
        return read_config_file(write_file(name, text), SECTIONS)

    return read


def brief(entries: list[Entry]) -> list[tuple[str, Any, str, str | None]]:
    return [(e.name, e.value, Path(e.where).name, e.section) for e in entries]


FLAT = [("stage", "sft", "{}:1", None), ("learning_rate", 2e-4, "{}:2", None)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "stage: sft\nlearning_rate: 2e-4\n"),
        ("a.YML", "stage: sft # words\nlearning_rate:   0.2e-3"),
        ("a.json", '{"stage": "sft",\n\t"learning_rate":2e-4}'),
        ("a.toml", 'stage = "sft"\nlearning_rate = 2e-4\n'),
    ],
)
def test_the_flat_layout_in_each_language(read, name: str, text: str):
    assert brief(read(text, name)) == [
        (key, value, where.format(name), section) for key, value, where, section in FLAT
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "run:\n  seed: 3\n\nmodel:\n  model_name_or_path: m\ncutoff_len: 9\n"),
        (
            "a.json",
            '{"run": {\n "seed": 3},\n\n"model": {\n "model_name_or_path": "m"},\n"cutoff_len": 9}',
        ),
    ],
)
def test_the_sectioned_layout(read, name: str, text: str):
    assert brief(read(text, name)) == [
        ("seed", 3, f"{name}:2", "run"),
        ("model_name_or_path", "m", f"{name}:5", "model"),
        ("cutoff_len", 9, f"{name}:6", None),
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('cutoff_len = 9\n[run]\nseed = 3\n[ model ]\n"model_name_or_path" = "m"', [1, 3, 5]),
        ('cutoff_len = 9\nrun.seed = 3\nmodel.model_name_or_path = "m"', [1, 2, 3]),
        ('cutoff_len = 9\nrun = {seed = 3}\nmodel = {model_name_or_path = "m"}', [1, 2, 3]),
    ],
)
def test_the_sectioned_layout_in_toml(read, text: str, lines: list[int]):
    assert brief(read(text, "a.toml")) == [
        ("cutoff_len", 9, f"a.toml:{lines[0]}", None),
        ("seed", 3, f"a.toml:{lines[1]}", "run"),
        ("model_name_or_path", "m", f"a.toml:{lines[2]}", "model"),
    ]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2e-4", 2e-4),
        ("2E+3", 2000.0),
        ("1_000", 1000),
        ("true", True),
        ("True", True),
        ("yes", "yes"),
        ("no", "no"),
        ("null", None),
        ("~", None),
        ("'2e-4'", "2e-4"),
        ("[q_proj, v_proj]", ["q_proj", "v_proj"]),
        ("{math: 2.0, 代码: 1}", {"math": 2.0, "代码": 1}),
        ('"\\ud83c\\udfbb"', "🎻"),
        ("2026-01-31", "2026-01-31"),
    ],
)
def test_yaml_values_are_plain_python(read, written: str, value: Any):
    found = read(f"x: {written}\n")[0].value
    assert found == value
    assert type(found) is type(value)


def test_json_values_beyond_the_first_plane(read):
    # json.dumps writes such a character as two escapes.
    assert read('{"default_system": "\\ud83c\\udfbb \\u7434"}', "a.json")[0].value == "🎻 琴"


def test_half_a_pair_of_escapes_is_no_character(read):
    # What stands in its place can be written to run.yaml again.
    assert read('{"default_system": "a\\ud83cb"}', "a.json")[0].value == "a\ufffdb"


def test_a_byte_order_mark_is_no_part_of_the_first_name(read):
    assert read(b"\xef\xbb\xbfseed: 1\n")[0].name == "seed"


def test_a_merged_key_points_at_its_section(read):
    entries = read("model: &base\n  seed: 1\nrun:\n  <<: *base\n  trainer: luthier\n")
    assert brief(entries) == [
        ("seed", 1, "a.yaml:2", "model"),
        ("trainer", "luthier", "a.yaml:5", "run"),
        ("seed", 1, "a.yaml:3", "run"),
    ]


def test_an_empty_section_is_none(read):
    assert brief(read("run:\nseed: 1\n")) == [("seed", 1, "a.yaml:2", None)]


REFUSED = {
    "list": ("a.yaml", "- seed: 1\n", r"a\.yaml:1: settings are .*holds a list"),
    "text": ("a.yaml", "seed 1\n", r"a\.yaml:1: settings are .*holds 'seed 1' alone"),
    "json list": ("a.json", "[1]", r"a\.json:1: settings are .*holds a list"),
    "empty": ("a.yaml", "", r"a\.yaml: the file holds no setting\n.*configs/"),
    "comments": ("a.yaml", "# nothing\n", r"a\.yaml: the file holds no setting"),
    "empty json": ("a.json", "{}", r"a\.json: the file holds no setting"),
    "empty toml": ("a.toml", "\n", r"a\.toml: the file holds no setting"),
    "tab": ("a.yaml", "run:\n\tseed: 1\n", r"a\.yaml:2: this is not valid YAML: .*'\\t'"),
    "quote": ("a.yaml", "x: 'y\nz: 1\n", r"a\.yaml:\d: this is not valid YAML: .*end of stream"),
    "json": ("a.json", '{"seed": 1\n"x": 2}', r"a\.json:2: this is not valid JSON"),
    "two documents": ("a.yaml", "seed: 1\n---\nseed: 2\n", r"a\.yaml:2: .*another document"),
    "control": ("a.yaml", "seed: 1\x00\n", r"a\.yaml: this is not valid YAML: .*#x0000.*\n.*Take"),
    "toml": ("a.toml", "seed = 1\nx = \n", r"a\.toml:2: this is not valid TOML: Invalid value"),
    "toml end": ("a.toml", "x = [1,\n", r"a\.toml(:\d)?: this is not valid TOML"),
    "twice": ("a.yaml", "seed: 1\nx: 2\nseed: 3\n", r"a\.yaml:3: seed stands twice .*\n.*Keep one"),
    "json twice": ("a.json", '{"seed": 1,\n"seed": 3}', r"a\.json:2: seed stands twice"),
    "toml twice": ("a.toml", "seed = 1\nseed = 3\n", r"a\.toml:2: .*overwrite"),
    "twice in a section": ("a.yaml", "run:\n  x: 1\n  x: 2\n", r"a\.yaml:3: x stands twice"),
    "section as value": ("a.yaml", "x: 1\nrun: 3\n", r"a\.yaml:2: run is a section.* 3\n.*`run:`"),
    "section as list": ("a.yaml", "run: [seed]\n", r"a\.yaml:1: run is a section.*\['seed'\]"),
    "latin-1": ("a.yaml", b"x: caf\xe9\n", r"a\.yaml: the file is not UTF-8 \(byte 6\)\n.*iconv"),
    "utf-16": ("a.yaml", "x: 1".encode("utf-16"), r"a\.yaml: the file is not UTF-8 \(byte 0\)"),
    "suffix": ("a.txt", "x: 1", r"a\.txt: a settings file ends in \.yaml.*\n.*Rename it"),
}


@pytest.mark.parametrize(("name", "text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_settings_file_can_not_be(read, name: str, text: str | bytes, message: str):
    with pytest.raises(SettingsError, match=rf"(?s)^/.*{message}"):
        read(text, name)


def test_a_missing_file_is_answered_with_the_nearest_one(write_file: WriteFile, tmp_path: Path):
    near = write_file("configs/lora_qlora.yaml", "x: 1")
    with pytest.raises(SettingsError, match=f"no such settings file\n  Did you mean {near}"):
        read_config_file(tmp_path / "configs" / "lora-qlora.yml", SECTIONS)


def test_a_missing_file_near_nothing(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"no such settings file\n.*stand in configs/"):
        read_config_file(tmp_path / "lora.yaml", SECTIONS)
    with pytest.raises(SettingsError, match=rf"The folder {tmp_path}/none does not exist either"):
        read_config_file(tmp_path / "none" / "lora.yaml", SECTIONS)


def test_a_folder_is_no_settings_file(tmp_path: Path):
    with pytest.raises(SettingsError, match="this is a folder, not a settings file"):
        read_config_file(tmp_path, SECTIONS)


def test_a_file_that_the_system_refuses(write_file: WriteFile):
    file = write_file("a.yaml", "x: 1")
    with pytest.raises(SettingsError, match=r"can't be read: Not a directory\n.*permissions"):
        read_config_file(file / "b.yaml", SECTIONS)

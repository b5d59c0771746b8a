"""What a stranger's file can't do: run code, leave its folder, fill the memory, run for ever.

Each test hands the product a hostile file and looks whether a marker was written. The table of
FINDINGS, part 5: versions, code in folders, chat templates, paths, pickles, safetensors, shells.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import shutil
import threading
import tomllib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

from luthier.core.errors import DataError, ModelError, RunError
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.sources import resolve_train
from luthier.dataset import template_process
from luthier.dataset.templates import PROBE, ChatTemplate, resolve_template
from luthier.dataset.tokenizer import load_tokenizer
from luthier.models.adapters import apply_tuning
from luthier.models.load import check_model_path, load_model
from luthier.models.settings import LoraTuning, ModelSettings, QuantizationSettings
from luthier.recipes.answering import load_answering_model

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")

# Versions.

TOO_OLD = {"transformers": "5.2.99", "torch": "2.9.9", "jinja2": "3.1.5", "datasets": "3.99"}


@pytest.mark.parametrize(("name", "version"), TOO_OLD.items())
def test_versions_with_known_holes_are_not_installed(name: str, version: str):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {found.name: found for found in map(Requirement, project["dependencies"])}[name]
    assert not wanted.specifier.contains(version)
    assert wanted.specifier.contains(importlib.metadata.version(name), prereleases=True)


# Code that comes with a folder.


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that hostile code writes."""
    return tmp_path / "marker"


@pytest.fixture
def model_folder(tiny_llama: Any, marker: Path) -> Path:
    """A good model's folder, with code beside it that nobody asked for."""
    folder: Path = tiny_llama("model")
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
    for name in ("evil.py", "modeling.py", "custom_generate/generate.py", "tokenization.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    return folder


def settings(folder: Path, **values: Any) -> ModelSettings:
    return ModelSettings(model_name_or_path=str(folder), **values)


def load(folder: Path) -> Any:
    return load_model(settings(folder), QuantizationSettings(), device=CPU, dtype=torch.float32)


def change(path: Path, **values: Any) -> None:
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(before | values))


CONFIGS = (
    *("config.json", "tokenizer_config.json", "generation_config.json"),
    *("processor_config.json", "preprocessor_config.json", "adapter_config.json"),
)
CODE: dict[str, dict[str, Any]] = {
    "auto_map": {
        "auto_map": {
            "AutoConfig": "evil.Config",
            "AutoModelForCausalLM": "evil.Model",
            "AutoTokenizer": ["evil.Slow", "evil.Fast"],
            "AutoProcessor": "evil.Processor",
        }
    },
    "attention": {"_attn_implementation_internal": "someone/kernel"},
    "attention, public": {"attn_implementation": "someone/kernel:forward"},
    "attention, nested": {"text_config": {"_attn_implementation": "someone/kernel"}},
    "experts": {"_experts_implementation_internal": "someone/kernel"},
    "trust, nested": {"text_config": {"deeper": [{"trust_remote_code": True}]}},
    "pipelines": {"custom_pipelines": {"text-generation": {"impl": "evil.Pipeline"}}},
    "generate": {"custom_generate": "evil/generate"},
    "megatron": {"megatron_config": {"a": 1}, "megatron_core": "evil"},
}


@pytest.mark.parametrize("file", CONFIGS)
@pytest.mark.parametrize("kind", CODE)
def test_code_in_a_config_needs_the_users_flag(
    model_folder: Path, marker: Path, file: str, kind: str
):
    assert load(model_folder).model is not None
    change(model_folder / file, **CODE[kind])
    for attempt in (
        lambda: check_model_path(settings(model_folder)),
        lambda: load(model_folder),
        lambda: load_answering_model(str(model_folder), CPU),
    ):
        with pytest.raises(ModelError, match=r"to run .*Python code|does not say which") as caught:
            attempt()
        assert caught.value.mend
    assert not marker.exists()


def test_code_beside_a_plain_config_is_not_run(model_folder: Path, marker: Path):
    assert load_answering_model(str(model_folder), CPU).prompt_ids(PROBE[:1])
    assert not marker.exists()


def test_code_of_a_tokenizer_needs_the_users_flag(model_folder: Path, marker: Path):
    change(model_folder / "tokenizer_config.json", **CODE["auto_map"])
    with pytest.raises(ModelError, match=r"its tokenizer wants to run Python code"):
        load_tokenizer(str(model_folder))
    assert not marker.exists()


# Chat templates.

ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch MARKER') }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].popen('touch MARKER').read() }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.system('touch MARKER') }}",
    "{{ strftime_now.__globals__['datetime'] }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ ['{0.__class__}']|map('format', messages)|first }}",
    "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
    "{{ messages[0].update(role='system') }}",
    "{{ messages[0].clear() }}",
    "{% set x = namespace() %}{% set x.__class__ = 1 %}",
    "{% for f in [namespace.__init__] %}{{ f.__code__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__call__.__func__.__globals__ }}",
    "{{ tojson.__globals__ }}{{ dict.__base__ }}",
    "{% import 'os' as os %}{{ os }}",
    "{% include '/etc/passwd' %}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ url_for.__globals__ }}",
    "{{ [].__class__.__base__.__subclasses__()[-1] }}",
    "{{ caller.__globals__ }}",
)
"""What jinja2 refuses."""

UNSEEN = (
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ''|attr('__cl' ~ 'ass__')|attr('__mro__') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ range.__wrapped__ }}",
    "{{ '{m.__class__}'.format_map({'m': messages}) }}",
    "{{ ('{0.__class__}'|attr('format'))(messages) }}",
    "{{ messages|map(attribute='__class__')|join }}",
    "{{ (messages|tojson).__class__ }}",
    "{{ loop.__class__ }}",
)
"""What jinja2 lets be written, as empty text."""


@pytest.fixture
def hostile(tmp_path: Path, marker: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "hostile.jinja"
        path.write_text(text.replace("MARKER", str(marker)))
        return path

    return write


@pytest.mark.parametrize("text", ESCAPES)
def test_a_template_can_not_leave_its_sandbox(
    text: str, load_tiny: Any, hostile: Callable[[str], Path], marker: Path
):
    path = hostile(text)
    with pytest.raises(ModelError, match="can't render one question and one answer") as caught:
        resolve_template(load_tiny("chatml"), str(path))
    assert caught.value.where == str(path)
    with pytest.raises(DataError, match=r"rows.jsonl:3: the chat template (fails|runs away)"):
        ChatTemplate(path.read_text(), {}).render(PROBE, where="rows.jsonl:3")
    assert not marker.exists()


@pytest.mark.parametrize("text", UNSEEN)
def test_a_template_sees_nothing_of_python(
    text: str, load_tiny: Any, hostile: Callable[[str], Path], marker: Path
):
    tokenizer, _ = resolve_template(load_tiny("chatml"), str(hostile(text)))
    assert ChatTemplate.of(tokenizer).render(PROBE) == ""
    assert not marker.exists()


LOOP = "{% for a in range(99999) %}"
STOPPED = "MemoryError|s of computing"
"""Which of the two limits a template meets first is a matter of the machine's speed."""

RUNAWAYS = {
    "2e8 characters": (
        "{{ 'a' * 200000000 }}",
        f"200,000,000 characters of text|{STOPPED}",
    ),
    "2e11 characters": ("{{ 'a' * 200000000000 }}", "MemoryError"),
    "a huge range": ("{% for a in range(10 ** 9) %}{% endfor %}", "fails at line 1: Range too big"),
    "loops in loops": (LOOP * 3 + "{% endfor %}" * 3, "s of computing"),
    "loops that write": (LOOP * 2 + "aaaaaaaaaa" + "{% endfor %}" * 2, "computing|MemoryError"),
    "a macro that calls itself": (
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "RecursionError",
    ),
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "s of computing",
    ),
    "a loop that calls itself": (
        "{% for a in [[1, 1]] recursive %}{{ loop([[1, 1], [1, 1]]) }}{% endfor %}",
        "RecursionError|s of computing|too many",
    ),
    "a power": ("{{ 9 ** (9 ** 9) }}", "s of computing"),
    "a power of a variable": ("{% set n = 9 %}{{ n ** (n ** n) }}", "s of computing"),
    "doubling": ("{% set x = 'a' * 99 %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}", STOPPED),
    "doubling by a block": (
        "{% set x = 'a' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60 + "{{ x }}",
        STOPPED,
    ),
    "lists in lists": (
        "{% set x = ['a'] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
        STOPPED,
    ),
    "a format": ("{{ '%999999999999d' % 1 }}", "MemoryError|fails at"),
    "padding": ("{{ 'a'|center(10 ** 12) }}", "MemoryError"),
    "filler words": ("{{ lipsum(10 ** 7) }}", "s of computing|MemoryError|characters"),
    "a long number": ("{{ (10 ** 5000)|string }}", "fails at Exceeds the limit"),
    "deep brackets": (
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "RecursionError|fails|process",
    ),
    "deep lists": (
        "{{ " + "[" * 300 + "]" * 300 + " }}{{ 1 / 0 }}",
        "RecursionError|fails|process",
    ),
}


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Give templates half a second; the process that serves them knows its limit from its start."""
    monkeypatch.setattr(template_process, "MAX_SECONDS", 0.5)
    template_process._SHARED.stop()
    yield
    template_process._SHARED.stop()


@pytest.mark.parametrize("name", RUNAWAYS)
@pytest.mark.usefixtures("short_limit")
def test_a_template_that_runs_away_is_stopped_in_any_thread(name: str):
    text, said = RUNAWAYS[name]
    answers: list[str] = []

    def render() -> None:
        try:
            ChatTemplate(text, {}).render(PROBE, where="rows.jsonl:3")
        except DataError as error:
            answers.append(str(error))

    thread = threading.Thread(target=render)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert re.match(rf"rows.jsonl:3: the chat template .*({said})", answers[0])


@pytest.mark.usefixtures("short_limit")
def test_a_template_that_runs_away_is_no_template(load_tiny: Any, hostile: Callable[[str], Path]):
    path = hostile(RUNAWAYS["loops in loops"][0])
    with pytest.raises(ModelError, match=r"runs away: more than 0.5 s of computing") as caught:
        resolve_template(load_tiny("chatml"), str(path))
    assert caught.value.where == str(path)


@pytest.mark.usefixtures("short_limit")
def test_a_template_that_is_tame_at_first_is_stopped_at_its_row():
    bomb = LOOP * 3 + "{% endfor %}" * 3
    template = ChatTemplate("{% if messages|length > 2 %}" + bomb + "{% endif %}x", {})
    assert template.render(PROBE) == "x"
    with pytest.raises(DataError, match=r"rows.jsonl:9: .* runs away: more than 0.5 s of compu"):
        template.render((*PROBE, *PROBE), where="rows.jsonl:9")
    assert template.render(PROBE) == "x"


# Paths.


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of data, and beside it one whose name begins alike."""
    for name in ("data", "data-evil"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    return tmp_path / "data"


OUTSIDE: dict[str, Callable[[Path], str]] = {
    "above": lambda data: "../rows.jsonl",
    "above, by a way round": lambda data: "sub/../../data-evil/rows.jsonl",
    "absolute": lambda data: str(data.parent / "data-evil" / "rows.jsonl"),
    "a name that begins alike": lambda data: "../data-evil/rows.jsonl",
    "the system": lambda data: "/etc/passwd",
    "a device": lambda data: "/dev/zero",
    "a link to a file": lambda data: "link.jsonl",
    "a link to a folder": lambda data: "linked/rows.jsonl",
    "a folder with a link in it": lambda data: "holder",
    "a zero byte": lambda data: "a\0b.jsonl",
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_dataset_info_names_files_of_its_folder(data: Path, name: str):
    evil = data.parent / "data-evil"
    (data / "sub").mkdir()
    (data / "link.jsonl").symlink_to(evil / "rows.jsonl")
    (data / "linked").symlink_to(evil)
    (data / "holder").mkdir()
    (data / "holder" / "x.jsonl").symlink_to(evil / "rows.jsonl")
    change(data / "dataset_info.json", rows={"file_name": OUTSIDE[name](data)})
    with pytest.raises(DataError, match=r"dataset_info\.json:1: the path .* leads out of the fol"):
        resolve_train(CorpusSettings(dataset="rows", dataset_dir=str(data)))
    change(data / "dataset_info.json", rows={"file_name": "rows.jsonl"})
    assert len(resolve_train(CorpusSettings(dataset="rows", dataset_dir=str(data)))) == 1


@pytest.mark.parametrize("key", ["tokenizer_file", "vocab_file", "merges_file", "chat_template"])
@pytest.mark.parametrize("form", ["absolute", "relative", "alike", "link"])
def test_a_tokenizer_config_opens_no_other_file(
    model_folder: Path, load_tiny: Any, key: str, form: str
):
    """Its own files are used, whatever it names; no text of the other file is ever seen."""
    other = model_folder.with_name("model-evil")
    shutil.copytree(model_folder, other)
    secret = "the text of another file"
    (other / "chat_template.jinja").write_text(secret)
    tokens = json.loads((other / "tokenizer.json").read_text())
    tokens["added_tokens"].append({**tokens["added_tokens"][0], "id": 9_999, "content": secret})
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    file = {"chat_template": "chat_template.jinja"}.get(key, "tokenizer.json")
    (model_folder / "link").symlink_to(other / file)
    named = {
        "absolute": str(other / file),
        "relative": f"../model-evil/{file}",
        "alike": f"{model_folder}-evil/{file}",
        "link": "link",
    }[form]
    before = load_tokenizer(str(model_folder))
    change(model_folder / "tokenizer_config.json", **{key: named})
    tokenizer = load_tokenizer(str(model_folder))
    assert tokenizer.get_vocab() == before.get_vocab()
    assert secret not in str(tokenizer.chat_template)


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/etc/passwd", "a/../../x"])
def test_weights_lie_beside_their_config(model_folder: Path, name: str):
    index = model_folder / "model.safetensors.index.json"
    (model_folder / "model.safetensors").rename(model_folder / "one.safetensors")
    change(index, weight_map={"lm_head.weight": name})
    with pytest.raises(ModelError, match="which is no safetensors file of this folder"):
        load(model_folder)
    index.unlink()
    change(model_folder / "config.json", transformers_weights=name)
    with pytest.raises(ModelError, match="which is no safetensors file of this folder"):
        load(model_folder)


def test_the_base_that_an_adapter_names_is_checked_like_any_model(
    model_folder: Path, tmp_path: Path, marker: Path
):
    adapter = make_adapter(model_folder, tmp_path / "adapter")
    change(model_folder / "config.json", **CODE["auto_map"])
    change(adapter / "adapter_config.json", base_model_name_or_path=str(model_folder))
    with pytest.raises(ModelError, match="own Python code"):
        load_answering_model(str(adapter), CPU)
    assert not marker.exists()


# Pickles.


class Evil:
    """A pickle of this writes the marker as it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def make_adapter(base: Path, folder: Path) -> Path:
    model = apply_tuning(load(base).model, LoraTuning(lora_rank=2))
    model.save_pretrained(str(folder))
    return folder


def plant(folder: Path, marker: Path) -> None:
    """Put hostile pickles under every name that a library may read."""
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt"):
        torch.save(Evil(marker), folder / name)
    for name in ("scheduler.pt", "rng_state.pth", "model.pt", "consolidated.00.pth", "x.ckpt"):
        torch.save(Evil(marker), folder / name)


def test_the_pickle_is_loaded(tmp_path: Path, marker: Path):
    """The marker would be written: else the tests below would show nothing."""
    torch.save(Evil(marker), tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert marker.exists()


def test_pickles_beside_good_weights_are_not_read(model_folder: Path, tmp_path: Path, marker: Path):
    adapter = make_adapter(model_folder, tmp_path / "adapter")
    plant(model_folder, marker)
    plant(adapter, marker)
    model = load(model_folder).model
    apply_tuning(model, LoraTuning(), str(adapter))
    load_answering_model(str(adapter), CPU)
    assert not marker.exists()


def test_a_model_of_pickles_is_refused(model_folder: Path, marker: Path):
    (model_folder / "model.safetensors").unlink()
    plant(model_folder, marker)
    for attempt in (
        lambda: check_model_path(settings(model_folder)),
        lambda: check_model_path(settings(model_folder, trust_remote_code=True)),
        lambda: load(model_folder),
        lambda: load_answering_model(str(model_folder), CPU),
    ):
        with pytest.raises(ModelError, match=r"the weights are pickled \(adapter_model\.bin, co"):
            attempt()
    assert not marker.exists()


def test_an_adapter_of_pickles_is_refused(model_folder: Path, tmp_path: Path, marker: Path):
    adapter = make_adapter(model_folder, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    plant(adapter, marker)
    for attempt in (
        lambda: apply_tuning(load(model_folder).model, LoraTuning(), str(adapter)),
        lambda: load_answering_model(str(adapter), CPU),
    ):
        with pytest.raises(ModelError, match="the weights are pickled") as caught:
            attempt()
        assert "adapter_model.safetensors" in str(caught.value.mend)
    assert not marker.exists()


def test_a_checkpoint_of_another_trainer_is_no_checkpoint(
    model_folder: Path, tmp_path: Path, marker: Path
):
    from luthier.checkpoints.manifest import verify

    checkpoint = tmp_path / "checkpoint-100"
    shutil.copytree(model_folder, checkpoint)
    plant(checkpoint, marker)
    (checkpoint / "trainer_state.json").write_text("{}")
    with pytest.raises(RunError, match=r"not a finished checkpoint: it has no manifest\.json"):
        verify(checkpoint)
    assert not marker.exists()


# Headers of safetensors; `test_weight_files.py` has every fault.


def header_of(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def first_tensor(header: dict[str, Any]) -> dict[str, Any]:
    return next(held for name, held in header.items() if name != "__metadata__")


HEADERS: dict[str, Callable[[Path], object]] = {
    "longer than the file": lambda path: path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:]),
    "noise": lambda path: path.write_bytes(path.read_bytes()[:8] + bytes(99)),
    "out of range": lambda path: header_of(
        path, lambda header: first_tensor(header).update(data_offsets=[0, 2**60])
    ),
    "overlapping": lambda path: header_of(
        path, lambda header: header.update(twice=first_tensor(header))
    ),
    "wrong type": lambda path: header_of(
        path, lambda header: first_tensor(header).update(dtype="F64")
    ),
    "unknown type": lambda path: header_of(
        path, lambda header: first_tensor(header).update(dtype="OBJECT")
    ),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_headers_of_safetensors_are_checked(model_folder: Path, tmp_path: Path, fault: str):
    adapter = make_adapter(model_folder, tmp_path / "adapter")
    model = load(model_folder).model
    HEADERS[fault](adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="the weights can't be used: ") as caught:
        apply_tuning(model, LoraTuning(), str(adapter))
    assert caught.value.where == str(adapter / "adapter_model.safetensors")
    HEADERS[fault](model_folder / "model.safetensors")
    for attempt in (lambda: check_model_path(settings(model_folder)), lambda: load(model_folder)):
        with pytest.raises(ModelError, match="the weights can't be used: ") as caught:
            attempt()
        assert caught.value.where == str(model_folder / "model.safetensors")


# Command lines.


def calls_of(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_command_lines_are_lists_and_nothing_is_evaluated():
    num_commands = 0
    for path in sorted((ROOT / "src").rglob("*.py")):
        for name, call in calls_of(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}"
            # Own steps and rewards stand in a file of Python that the user names.
            if path.name != "own_code.py":
                assert name not in {"eval", "exec", "compile"}, where
            assert name not in {"os.system", "os.popen", "torch.load"}, where
            assert not name.startswith(("pickle.", "os.spawn", "os.exec", "marshal.")), where
            assert all(keyword.arg != "shell" for keyword in call.keywords), where
            if name.startswith("subprocess.") and name != "subprocess.list2cmdline":
                num_commands += 1
                assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr), where
    assert num_commands > 3

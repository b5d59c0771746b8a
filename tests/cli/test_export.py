from __future__ import annotations

import sys
from pathlib import Path

import pytest

from luthier.cli import export as command
from luthier.cli.main import main
from luthier.export.check import CheckResult, Sample
from luthier.recipes.export import Exported
from luthier.recipes.export_request import ExportRequest

GOOD = CheckResult(kl=4e-6, top1=1.0, ppl=18.785, ppl_ratio=1.0, ids_equal=True, stops=True)


def exported(name, result, *, kind=None, num_bytes=145_000_000, notes=()):
    return Exported(Path("out") / name, name, kind, num_bytes, 12.34, result, notes)


def test_artifacts_are_shown_in_a_table(capture):
    shown = capture(command)
    answers = Sample("[red]Say it.", "Yes.\nOf course.", "No " * 99)
    results = [
        exported("gguf", GOOD, kind="Q8_0", notes=("a width fell back [x]",)),
        exported("tensorrt", CheckResult(not_checked="no GPU: run check.sh there")),
        exported("adapter", CheckResult(samples=(answers,)), num_bytes=1000),
    ]
    command.show(results)
    lines = shown.getvalue().splitlines()
    header = next(line for line in lines if line.startswith("target"))
    assert header.split() == ["target", "type", "MB", "seconds", "PPL", "KL", "top-1", "verdict"]
    rows = lines[lines.index(header) + 1 :]
    assert rows[0].split() == ["gguf", "Q8_0", "145", "12.3", "18.785", "4e-06", "1.000", "passed"]
    assert rows[1].split()[-2:] == ["not", "checked"]
    assert rows[2].split() == ["adapter", "<1", "12.3", "passed"]
    text = shown.getvalue()
    assert "not checked  tensorrt: no GPU: run check.sh there" in text
    assert "note  gguf: a width fell back [x]" in text
    assert "  prompt    [red]Say it." in text
    assert "  trained   Yes. Of course." in text
    assert "  artifact  No No" in text
    assert "No N..." in text
    assert str(Path("out") / "gguf") in lines


def test_a_failed_check_is_told_and_ends_with_1(capture):
    shown = capture(command)
    bad = CheckResult(kl=2.0, problems=("its KL divergence is 2", "it does not stop at [2]"))
    with pytest.raises(SystemExit) as end:
        command.show([exported("hf", GOOD), exported("hf.failed", bad)])
    assert end.value.code == 1
    assert "failed  hf.failed: its KL divergence is 2" in shown.getvalue()
    assert "failed  hf.failed: it does not stop at [2]" in shown.getvalue()


def test_a_model_is_exported(tiny_llama, capture, tmp_path):
    shown = capture(command)
    command.run(ExportRequest(str(tiny_llama()), ["hf"], out=str(tmp_path / "out")))
    assert "passed" in shown.getvalue()
    assert (tmp_path / "out" / "tiny-hf" / "export.json").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["RUN", "--to", "hf", "gguf:Q8_0"], ExportRequest("RUN", ["hf", "gguf:Q8_0"])),
        (["--to", "hf", "--to", "adapter", "--overwrite", "RUN"], None),
        (
            ["RUN", "--to", "hf", "a", "--out", "O", "--dtype", "float16", "--data", "D"],
            ExportRequest("RUN", ["hf", "a"], out="O", dtype="float16", data="D"),
        ),
    ],
)
def test_targets_follow_one_another(monkeypatch, words, expected):
    asked = []
    monkeypatch.setattr(command, "run", asked.append)
    monkeypatch.setattr(sys, "argv", ["luthier", "export", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert asked == [expected or ExportRequest("RUN", ["hf", "adapter"], overwrite=True)]

"""Quiet libraries say nothing but their errors."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, warnings
from luthier.recipes.quiet import quiet_libraries

if sys.argv[1] == "quiet":
    quiet_libraries()
import datasets, os, transformers

transformers.utils.logging.get_logger("transformers.x").warning("ADVICE of transformers")
transformers.utils.logging.get_logger("transformers.x").error("ERROR of transformers")
for done in transformers.utils.logging.tqdm(range(2), desc="BAR of transformers"):
    pass
datasets.Dataset.from_dict({"x": [1]}).map(lambda row: row, desc="BAR of datasets")
warnings.warn_explicit("OLD of transformers", FutureWarning, "x.py", 1, "transformers.x")
warnings.warn_explicit("OLD of luthier", FutureWarning, "x.py", 1, "luthier.x")
print(os.environ.get("TOKENIZERS_PARALLELISM"))
"""


def run(how: str) -> subprocess.CompletedProcess[str]:
    environment = {"HF_HUB_OFFLINE": "1", "PATH": "", "HF_DATASETS_CACHE": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-c", CODE, how],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )


def test_bars_and_advice_are_silenced_and_errors_are_not():
    loud, quiet = run("loud"), run("quiet")
    for said in (
        "ADVICE of transformers",
        "BAR of transformers",
        "BAR of datasets",
        "OLD of transformers",
    ):
        assert said in loud.stderr
        assert said not in quiet.stderr
    assert "ERROR of transformers" in quiet.stderr
    assert "OLD of luthier" in quiet.stderr
    assert quiet.stdout.strip() == "true"

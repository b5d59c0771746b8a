"""`gguf:TYPE`: one file for llama.cpp and what is built on it, run before it is handed over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from luthier.core.errors import MissingExtraError
from luthier.export.check import CheckResult, bound_of, check_runtime
from luthier.export.gguf.architectures import architecture_of
from luthier.export.gguf.rope import rope_of
from luthier.export.gguf.runtime import TIMEOUT_S, LlamaCppError, LlamaCppRuntime
from luthier.export.gguf.tensor_types import BITS, FILE_TYPES
from luthier.export.target import Artifact

if TYPE_CHECKING:
    from pathlib import Path

    from luthier.export.probe import Probe
    from luthier.export.source import Source
    from luthier.export.target import Tell

EXTRA = "gguf"


class GgufTarget:
    """One GGUF file.

    Args:
        timeout_s: Longest time that llama.cpp may take for one question of the check.
    """

    name = "gguf"
    needs_type = True
    needs_weights = True

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.timeout_s = timeout_s

    def types(self) -> tuple[str, ...]:
        """Return the types of a file, best first."""
        return tuple(FILE_TYPES)

    def bits(self, kind: str | None) -> float:
        """Return about how many bits a weight takes."""
        return BITS[kind or "F32"]

    def require(self) -> None:
        """Need what writes the file. What runs it is asked for when it is checked."""
        for package in ("gguf", "libgguf"):
            if not _is_installed(package):
                raise MissingExtraError.of(package, EXTRA, "writing GGUF")

    def refuse(self, source_config: Mapping[str, Any]) -> None:
        """Refuse a model that llama.cpp computes otherwise, or not at all."""
        architecture_of(source_config)
        rope_of(source_config)

    def write(self, source: Source, kind: str | None, folder: Path, tell: Tell) -> Artifact:
        """Write the file, named after the run and its type."""
        from luthier.export.gguf.writer import write_gguf

        chosen = kind or "F32"
        name = re.sub(r"[^\w.-]+", "-", str(source.facts.get("name") or "model"))
        main = f"{name}-{chosen}.gguf"
        notes = write_gguf(source, chosen, folder / main, tell)
        return Artifact(folder, chosen, main, notes)

    def check(self, artifact: Artifact, probe: Probe) -> CheckResult:
        """Run the file in llama.cpp, in a process of its own."""
        if not _is_installed("xllamacpp"):
            return CheckResult(
                not_checked="xllamacpp, which runs llama.cpp, is not installed: pip install "
                f"'luthier[{EXTRA}]' and then luthier verify {artifact.folder}"
            )
        try:
            with LlamaCppRuntime(artifact.path, _longest(probe), self.timeout_s) as runtime:
                return check_runtime(runtime, probe, bound_of(artifact.kind))
        except LlamaCppError as error:
            return CheckResult(problems=(error.problem,))


def _is_installed(package: str) -> bool:
    try:
        import_module(package)
    except ImportError:
        return False
    return True


def _longest(probe: Probe) -> int:
    rows = [len(row) for row in probe.rows]
    answers = [len(prompt) + probe.max_new_tokens for prompt in probe.prompts]
    return max(64, *rows, *answers)

"""Which luthier runs here: its commit, what was changed since, and a hash of the source itself.

Comes in: the folder of the package. Goes out: plain facts, and the changes as a diff that
`git apply` takes. Outside a checkout there is the hash alone.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import luthier
from luthier.core.hashing import hash_file, hash_json
from luthier.core.secrets import redact

SOURCE = Path(luthier.__file__).parent

_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--binary", "--full-index")
_PREFIXES = ("--src-prefix=a/", "--dst-prefix=b/")


def source_commit(folder: Path = SOURCE) -> dict[str, Any]:
    """Return the commit of luthier's own source, where it runs from a git checkout."""
    # Installed into an environment below somebody's project, that project's commit is not ours.
    if not _git(folder, "ls-files", "--", "__init__.py"):
        return {}
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git(folder, "status", "--porcelain", "--", ".")
    return {"commit": commit.strip(), "changed_since_commit": bool(changed)}


def source_diff(folder: Path = SOURCE) -> str:
    """Return what was changed since the commit, new files included; empty where nothing was.

    Secrets in it are hidden.
    """
    if not source_commit(folder).get("changed_since_commit"):
        return ""
    root = Path((_git(folder, "rev-parse", "--show-toplevel") or "").rstrip("\n"))
    parts = [_git(folder, *_DIFF, *_PREFIXES, "HEAD", "--", ".") or ""]
    new = _git(folder, "ls-files", "-z", "--others", "--exclude-standard", "--full-name", "--", ".")
    for name in filter(None, (new or "").split("\0")):
        words = ("--no-index", "--", os.devnull, name)
        parts.append(_git(root, *_DIFF, *_PREFIXES, *words) or "")
    return redact("".join(parts))


def source_sha256(folder: Path = SOURCE) -> str:
    """Return a hash over all files of the source: the same source has it wherever it is."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return hash_json({path.relative_to(folder).as_posix(): hash_file(path) for path in files})


def _git(folder: Path, *arguments: str) -> str | None:
    # It only looks: without this, `status` would take the index's lock.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        return None
    # Two files that differ are the answer 1.
    is_good = done.returncode == 0 or (done.returncode == 1 and "--no-index" in arguments)
    return done.stdout.decode("utf-8", "replace") if is_good else None

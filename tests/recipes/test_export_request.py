from __future__ import annotations

import subprocess
import sys


def test_asking_loads_nothing_heavy():
    code = (
        "import sys; from luthier.recipes.export_request import ExportRequest; "
        "assert ExportRequest('m', ['hf']).overwrite is False; "
        "print([n for n in ('torch', 'numpy', 'transformers') if n in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"

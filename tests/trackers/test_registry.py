from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from luthier.core.errors import MissingExtraError
from luthier.trackers import registry
from luthier.trackers.registry import TRACKERS, Known, require_packages
from luthier.trackers.settings import TrackingSettings
from luthier.trackers.tensorboard import TensorBoard


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TensorBoard whose package is nowhere."""
    known = Known(TensorBoard, "tensorboard_of_nobody", "board")
    monkeypatch.setattr(registry, "TRACKERS", {"tensorboard": known})


@pytest.mark.usefixtures("lost")
def test_a_missing_package_is_named_with_its_extra():
    said = r"tensorboard needs the package tensorboard_of_nobody(.|\n)*'luthier\[board\]'"
    with pytest.raises(MissingExtraError, match=said):
        require_packages(TrackingSettings(report_to="tensorboard"))
    require_packages(TrackingSettings(report_to="none"))


@pytest.mark.usefixtures("lost")
def test_a_folder_of_its_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tensorboard_of_nobody" / "run-1").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match="which is not installed"):
        require_packages(TrackingSettings(report_to="tensorboard"))


def test_every_extra_is_one_of_luthiers():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for known in TRACKERS.values():
        assert [re.split("[<>=]", name)[0] for name in extras[known.extra]] == [known.package]


def test_no_package_is_loaded_before_a_run_is_opened():
    code = (
        "import sys; from luthier.trackers.registry import TRACKERS\n"
        "for known in TRACKERS.values(): known.build()\n"
        "heavy = {'torch', *(known.package for known in TRACKERS.values())} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

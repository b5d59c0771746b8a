"""What a recipe tells the person who started it. The command line draws it; tests collect it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from luthier.contracts.notice import Notice
from luthier.contracts.training import Observer

if TYPE_CHECKING:
    import torch

    from luthier.dataset.prepare import Prepared
    from luthier.engine.precision import Precision
    from luthier.models.adapters import ParameterCount
    from luthier.recipes.corpus import PreparedCorpus


class Screen(Observer, Protocol):
    """An observer that also hears about what happens before the first step."""

    def say(self, line: str) -> None:
        """Something that takes time begins, or something worth a line happened."""
        ...

    def working(self, what: str, done: int, total: int) -> None:
        """Something that can be counted goes on; `done == total` when it is over."""
        ...

    def notice(self, notice: Notice) -> None:
        """Something was substituted, or deserves a warning."""
        ...

    def corpus(self, corpus: PreparedCorpus) -> None:
        """The corpus steps are done, or were found done."""
        ...

    def data(self, prepared: Prepared) -> None:
        """The data is prepared."""
        ...

    def model(self, parameters: ParameterCount, device: torch.device, precision: Precision) -> None:
        """The model is loaded and it is settled what is trained."""
        ...

"""`luthier verify`: the hashes of an exported artifact, and its check once more."""

from __future__ import annotations

from luthier.cli.display import TrainScreen
from luthier.cli.export import show
from luthier.cli.terminal import console


def run(folder: str) -> None:
    """Verify an artifact and show how it did.

    Raises:
        LuthierError: There is none, or its target's packages are missing.
        SystemExit: A file has changed, or the check failed.
    """
    from luthier.recipes.export import verify
    from luthier.recipes.quiet import quiet_libraries

    quiet_libraries()
    with TrainScreen(console) as screen:
        verified = verify(folder, screen)
    show([verified])

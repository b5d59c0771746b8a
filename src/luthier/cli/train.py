"""`luthier train`: settings in, a run folder out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from luthier.cli.terminal import console
from luthier.core.exit_codes import STOPPED
from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_resolve import resolve_command


def run(args: Sequence[str]) -> None:
    """Resolve the settings, train, and say what came of it.

    Raises:
        LuthierError: Anything that the user can mend.
    """
    resolved = resolve_command(read_flags(args))
    # Imported only now: a typo in the settings is answered before torch is loaded.
    from luthier.cli.display import TrainScreen
    from luthier.cli.summary import print_summary
    from luthier.engine.interrupt import StopSignals
    from luthier.recipes.quiet import quiet_libraries
    from luthier.recipes.train import run_training

    quiet_libraries()
    with TrainScreen(console) as screen, ExitStack() as signals:
        stop = StopSignals(screen.signalled)
        if resolved.config.run.trainer == "luthier":
            # The Trainer writes no checkpoint: there, Ctrl-C ends the command at once.
            signals.enter_context(stop)
        result = run_training(resolved.config, ["luthier", "train", *args], screen, stop)
    print_summary(console, result, args)
    if not result.finished:
        sys.exit(STOPPED)

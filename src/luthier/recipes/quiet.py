"""Keep the libraries' own progress bars and advice off the screen; their errors stay."""

from __future__ import annotations

import os
import warnings


def quiet_libraries() -> None:
    """Silence progress bars and advisory warnings of transformers and datasets."""
    # Tokenising runs in threads of its own; a loader's workers must not warn about it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # What one library is to change in its use of another is not for the user to read.
    for library in ("transformers", "peft", "accelerate"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=rf"{library}\b")
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()

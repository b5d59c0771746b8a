"""luthier: from raw text to a verified, deployable language model.

The folders are the pipeline; read them in this order: `corpus`, `dataset`, `models`, `batches`,
`objectives`, `engine`, `checkpoints`, `evaluation`, `recipes`, `cli`. `core` and `contracts` lie
below all of them. Nothing is imported here, so that `luthier --help` answers at once.
"""

__version__ = "0.1.0"

"""A data set from the Hugging Face hub, through `datasets`, which is imported only here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from luthier.contracts.conversation import Origin
from luthier.core.errors import DataError
from luthier.corpus.readers.source import Source


def read_hub(source: Source) -> Iterator[tuple[Origin, dict[str, Any]]]:
    """Yield the rows of the first of the source's splits that the data set has.

    Args:
        source: A source with a hub name.

    Raises:
        DataError: The hub can't be reached, has no such data set, or none of the splits.
    """
    for row, found in enumerate(_load(source)):
        yield Origin(source.name, row), dict(found)


def _load(source: Source) -> Any:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    assert source.hub is not None, "the source of a hub reader has a hub name"
    try:
        found = load_dataset(source.hub, source.subset, data_dir=source.folder)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DataError(
            f"{source.hub} can't be loaded from the hub: {error}",
            where=source.label,
            mend="If a file is meant: there is none of this path. If the hub is meant: check the "
            "name and the network, or download the files elsewhere and name their folder.",
        ) from error
    splits = cast(Mapping[str, Any], found)
    for name in source.splits:
        if name in splits:
            return splits[name]
    raise DataError(
        f"{source.hub} has no split {' or '.join(source.splits)}, only {', '.join(splits)}",
        where=source.label,
        mend="Name another data set, or a split in dataset_info.json; for validation, val_size "
        "cuts rows from the training data.",
    )

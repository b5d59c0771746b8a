"""The steps of a corpus on a Ray cluster, by Ray Data: the same work, the same result.

In: a function and items, as `runners.py` has them. Out: results in the order of the items. Workers
read and write parts themselves, so all machines of the cluster must see the corpus's cache folder
and the user's files under the same path.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from luthier.core.errors import LuthierError, MissingExtraError
from luthier.corpus.runners import Item, Result


@dataclass(frozen=True, slots=True)
class RayData:
    """Does the work in tasks of Ray Data.

    Attributes:
        address: The cluster; None joins the one that the environment names, or starts one here.
    """

    address: str | None = None

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the result of each item.

        Raises:
            MissingExtraError: Ray is not installed.
            LuthierError: A worker can't see the parts.
        """
        if not items:
            return
        ray = started(self.address)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        # What a worker raises comes as it is, and not wrapped in an account of Ray's.
        context.raise_original_map_exception = True
        # The function goes to the cluster once, whatever it carries.
        kept = ray.put(_Work(work, list(items)))
        numbers = ray.data.range(len(items), override_num_blocks=len(items))
        found = numbers.map_batches(_task, fn_kwargs={"kept": kept}, batch_size=1)
        with _causes(ray):
            for number, row in enumerate(found.iter_rows()):
                assert row["number"] == number, "Ray Data keeps the order of the items"
                yield row["result"]


@dataclass(frozen=True, slots=True)
class _Work:
    call: Callable[[Any], Any]
    items: list[Any]


def _task(batch: dict[str, Any], kept: Any) -> dict[str, Any]:
    import numpy as np
    import ray

    found: _Work = ray.get(kept)
    number = int(batch["id"][0])
    result = np.empty(1, object)
    try:
        result[0] = found.call(found.items[number])
    except FileNotFoundError as error:
        raise LuthierError(
            f"a worker does not see {error.filename}",
            mend="Set LUTHIER_CACHE to a folder that all machines of the cluster share.",
        ) from error
    return {"number": np.array([number]), "result": result}


@contextmanager
def _causes(ray: Any) -> Generator[None]:
    """Raise what a worker raised, in place of Ray's account of it.

    Raises:
        LuthierError: A worker raised it, or died.
        OSError: A worker raised it.
    """
    try:
        yield
    except ray.exceptions.WorkerCrashedError as error:
        raise LuthierError(
            "a Ray worker died, most likely because its machine is out of memory",
            mend="Give the cluster more memory; what is finished is kept.",
        ) from error
    except ray.exceptions.RayTaskError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, LuthierError | OSError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is None:
            raise
        raise cause from error


def started(address: str | None) -> Any:
    """Return the ray module, connected.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    try:
        import ray

        import_module("ray.data")  # a part with dependencies of its own
    except ImportError:
        raise MissingExtraError.of("ray", "ray", "--ray") from None
    if not ray.is_initialized():
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                include_dashboard=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, ValueError) as error:
            raise LuthierError(
                f"there is no Ray cluster to join: {error}",
                where="--ray",
                mend="Check the address, or give the bare flag to start Ray on this machine.",
            ) from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from luthier.core.errors import DataError, LuthierError, MissingExtraError
from luthier.corpus.ray_runner import RayData, started

ray = pytest.importorskip("ray", reason="the extra ray is not installed")


def square(number: int) -> dict[str, Any]:
    return {"square": [number * number], "raw": [b"\0"]}


def refuse(item: str) -> str:
    raise DataError("this can't be used", where=item, mend="Mend it.")


def look_for(item: str) -> str:
    with open(item) as stream:  # noqa: PTH123
        return stream.read()


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def test_results_come_in_the_order_of_the_items():
    found = list(RayData().map(square, list(range(7))))
    assert found == [square(number) for number in range(7)]


def test_nothing_to_do():
    assert list(RayData().map(square, [])) == []


def test_an_error_arrives_whole():
    with pytest.raises(DataError, match="can't be used") as caught:
        list(RayData().map(refuse, ["a.jsonl:7"]))
    assert caught.value.where == "a.jsonl:7"


def test_a_worker_that_sees_no_part_says_what_to_share():
    with pytest.raises(LuthierError, match=r"does not see /nowhere/part(.|\n)*LUTHIER_CACHE"):
        list(RayData().map(look_for, ["/nowhere/part"]))


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"--ray needs(.|\n)*luthier\[ray\]"):
        started(None)


def test_an_address_without_a_cluster(monkeypatch: pytest.MonkeyPatch):
    def refuse_to_connect(**_options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse_to_connect)
    with pytest.raises(LuthierError, match="there is no Ray cluster to join: Could not find"):
        started("auto")

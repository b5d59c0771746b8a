"""Every purpose has a random stream of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from luthier.core.seeds import derive_seed


@given(st.integers(), st.lists(st.text() | st.integers(), max_size=4))
def test_a_seed_fits_every_generator(seed: int, purpose: list[str | int]) -> None:
    derived = derive_seed(seed, *purpose)
    assert 0 <= derived < 2**31
    assert derived == derive_seed(seed, *purpose)


def test_seeds_and_purposes_are_told_apart() -> None:
    derived = {derive_seed(seed, "order", epoch) for seed in range(40) for epoch in range(40)}
    assert len(derived) == 1600
    assert len({derive_seed(0), derive_seed(0, "ab"), derive_seed(0, "a", "b")}) == 3


def test_pinned() -> None:
    """A change here would give every resumed run another order of rows."""
    assert derive_seed(42, "order", 0) == 847_755_010

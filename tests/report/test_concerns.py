"""What is said loudly, and what is not."""

from __future__ import annotations

from typing import Any

from luthier.report.concerns import concerns


def sentences(manifest: dict[str, Any]) -> list[str]:
    return [text.en.replace("\u00a0", " ") for text in concerns(manifest)]


def test_a_quiet_corpus(manifest) -> None:
    assert sentences(manifest) == []
    assert sentences({"steps": [{"name": "read", "rows_in": 1, "rows_out": 1}]}) == []


def test_a_step_that_drops_over_a_fifth(manifest) -> None:
    manifest["steps"][-1] |= {"dropped": {"dup_near": 198}}
    assert sentences(manifest) == []
    manifest["steps"][-1] |= {"dropped": {"dup_near": 199}}
    assert sentences(manifest)[0].startswith(
        "The step near dropped 20.1 % of the rows it was given (199 of 990)"
    )


def test_the_step_that_drops_on_purpose_is_no_concern(manifest) -> None:
    manifest["steps"][-1] |= {"name": "sample", "dropped": {"not_sampled": 900}}
    assert sentences(manifest) == []


def test_leakage_comes_first(manifest) -> None:
    manifest["is_sample"] = True
    manifest["split"]["audit"] = {"share": 0.02, "num_relatives": 1}
    assert sentences(manifest)[0].startswith("2.0 % of the validation rows (1) have a relative")
    assert sentences(manifest)[1].startswith("This is a sample")


def test_strata_without_a_validation_row(manifest) -> None:
    strata = manifest["split"]["strata"]
    strata["length"]["over 32768"] = {"rows": 3, "val": 0}
    strata["category"] |= {f"c{at}": {"rows": 1, "val": 0} for at in range(7)}
    length, category = sentences(manifest)
    assert "for > 32768 (length in tokens)" in length
    assert "for c0, c1, c2, c3, c4 and 2 more (category)" in category
    manifest["split"]["by"] = "val_file"
    assert sentences(manifest) == []


def test_nothing_left_no_validation_and_lost_characters(manifest) -> None:
    manifest["steps"][-1]["rows_out"] = 0
    manifest["steps"][1]["counts"] = {"lost_bytes": 7}
    manifest["split"]["val"]["rows"] = 0
    empty, no_val, lost = sentences(manifest)
    assert empty.startswith("No row is left")
    assert no_val.startswith("Validation is asked for")
    assert lost.startswith("7 kept rows hold characters that were lost")


def test_notices_of_the_run_are_said_but_not_twice(manifest) -> None:
    manifest["steps"][-1] |= {"dropped": {"dup_near": 500}}
    manifest["split"]["audit"]["share"] = 0.5
    bare = {"asked": "", "used": "", "reason": "r"}
    manifest["warnings"] = [
        {"setting": "near", **bare},
        {"setting": "val_file", **bare},
        {"setting": "pii", **bare},
        {"setting": "near", "asked": "a", "used": "b", "reason": "r"},
    ]
    assert sentences(manifest)[2:] == ["pii: r", "near: a -> b (r)"]

"""Marks of figures that are not measured on exactly the clips that should be there."""

from collections.abc import Mapping
from typing import Any

MARK = "*"
_UNMARKED = ("protocol", "coverage")  # blocks without figures


def coverage_differences(coverage: Mapping[str, Any]) -> list[str]:
    """Say how the measured clips differ from those that should be there, a clause each; [] = not at all.

    Args:
      coverage: of `retrieval.coverage_of` or `benchmark_data.benchmark_coverage`; what is unknown is no difference.
    """
    found = []
    if coverage.get("missing"):
        found.append(f"{coverage['missing']:,} of {coverage['expected']:,} clips are missing")
    elif coverage.get("expected") is not None and coverage["found"] > coverage["expected"]:
        found.append(f"{coverage['found']:,} clips are there, the list has {coverage['expected']:,}")
    if "texts_expected" in coverage and coverage["texts_found"] != coverage["texts_expected"]:
        found.append(f"{coverage['texts_found']:,} texts are there, the list has {coverage['texts_expected']:,}")
    if "classes_expected" in coverage and coverage["classes_found"] != coverage["classes_expected"]:
        found.append(f"{coverage['classes_found']:,} classes have clips, the list has {coverage['classes_expected']:,}")
    if coverage.get("ids_match") is False:
        found.append("the annotation files list other clip ids")
    return found


def marked(results: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `retrieval.json` with `marked: true`, at its top and in each block that holds figures.

    Args:
      results: the content; returned as it is where the measured clips are those that should be there.

    >>> marked({"coverage": {"missing": 1, "expected": 3, "found": 2}, "text_to_video": {"R@1": 50.0}})["text_to_video"]
    {'R@1': 50.0, 'marked': True}
    """
    if not coverage_differences(results["coverage"]):
        return results
    blocks = {key: value if key in _UNMARKED else _with_mark(value) for key, value in results.items()}
    return blocks | {"marked": True}


def _with_mark(block: Any) -> Any:
    if not isinstance(block, dict):
        return block
    made = {key: _with_mark(value) for key, value in block.items()}
    return made | ({"marked": True} if any(map(_is_figure, block.values())) else {})


def _is_figure(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_figure, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def mark_of(results: Mapping[str, Any]) -> str:
    """Return what stands behind each figure: `MARK`, or "" where nothing is to be marked."""
    return MARK if results.get("marked") else ""


def legend(results: Mapping[str, Any]) -> str:
    """Explain the mark in a sentence; "" without one."""
    if not mark_of(results):
        return ""
    differences = "; ".join(coverage_differences(results["coverage"]))
    return f"{MARK} not comparable with figures of the whole test set: {differences}."

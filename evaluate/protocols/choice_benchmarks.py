"""Test protocols of the public benchmarks of multiple choice, as data."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .benchmark_entry import Entry


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceBenchmark(Entry):
    """The protocol of a benchmark of multiple choice.

    Attributes:
      choices: options of each question.
    """

    task: str = "multiple choice"
    choices: int
    frames: Mapping[str, int] = dataclasses.field(default_factory=dict)


_ENTRIES = (
    ChoiceBenchmark(
        name="msrvtt-mc",
        title="MSR-VTT-MC: the caption of a clip among those of four others",
        source="msrvtt_mc",
        videos=None,
        choices=5,
        citation="Yu, Kim, Kim: A Joint Sequence Fusion Model for Video Question Answering and Retrieval, ECCV 2018",
        notes="Code that takes the first of equal options prints `first_wins`.",
    ),
    ChoiceBenchmark(
        name="ssv2-mc",
        title="SSv2-MC: one of 174 actions of Something-Something v2",
        source="ssv2_mc",
        split="val",
        videos=None,
        choices=174,
        citation="Wang et al.: InternVideo2: Scaling Foundation Models for Multimodal Video Understanding, ECCV 2024; "
        "actions of Goyal et al., ICCV 2017",
        notes="All questions have the same 174 options, so this is classification among sentences without templates.",
    ),
)

CHOICE_BENCHMARKS: dict[str, ChoiceBenchmark] = {entry.name: entry for entry in _ENTRIES}
"""All entries by name."""


def choice_deviations(entry: ChoiceBenchmark, *, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how many questions of clips have other numbers of options than the benchmark's, in a sentence."""
    counts = [len(asked["options"]) for row in rows for asked in row.get("questions") or [] if asked.get("options")]
    other = sum(count != entry.choices for count in counts)
    return [f"{other:,} of {len(counts):,} questions have other than {entry.choices} options"] if other else []

"""Test protocols of the public benchmarks of zero-shot classification, as data.

Templates are those of the code that papers cite; a paper that uses others, or another rule, measures something else:
the report states both.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..measures.zero_shot_rules import DEFAULT_RULE
from .benchmark_entry import Entry

_KINETICS_TEXTS = {
    "CLIP, PE": "clip_kinetics, mean of unit texts (rule unit_text_means)",
    "InternVideo2": "actionclip, lower case without punctuation, mean of cosines (rule mean_of_cosines)",
    "VideoPrism": "a video of {}.",
}
_ACTION_TEXTS = _KINETICS_TEXTS | {"CLIP, PE": "clip_ucf101, mean of unit texts (rule unit_text_means)"}
_INTERNVIDEO2 = "InternVideo2 also prints AVG, the mean of top-1 and top-5."
_KINETICS_NOTES = (
    "Videos vanish, so copies of the data set differ ({copies}): compare subset ids. The validation clips of "
    f"Kinetics-400 are for the most part training clips of Kinetics-700. {_INTERNVIDEO2}"
)
_FOLDS_NOTES = f"Papers give the mean over the three folds, or fold 1 alone: say which. {_INTERNVIDEO2}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassBenchmark(Entry):
    """The protocol of a benchmark of classification.

    Attributes:
      classes: number of classes.
      classes_sha256: of the class names, see `class_names.names_sha256`; None = not known to twinreel.
      templates: the set that is used unless another one is named.
      class_names: how labels become words, "as_is" or "words".
      rule: from texts and clips to scores, a name of `zero_shot_rules.RULES`, unless another one is named.
      texts: templates and rules by the code that uses them.
    """

    task: str = "zero-shot classification"
    classes: int
    classes_sha256: str | None = None
    templates: str
    class_names: str = "as_is"
    rule: str = DEFAULT_RULE
    texts: Mapping[str, str]
    frames: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"InternVideo2": 8})
    views: str = "one clip of each video, one centre crop"
    variations: tuple[str, ...] = (
        "windows",
        "window_seconds",
        "clip_side",
        "templates",
        "class_names",
        "classes",
        "rule",
        "view_rule",
    )


def _kinetics(classes: int, *, paper: str, copies: str, **fields: Any) -> ClassBenchmark:
    return ClassBenchmark(
        name=f"kinetics{classes}",
        title=f"Kinetics-{classes}, validation split",
        source=f"kinetics{classes}",
        split="val",
        videos=None,
        classes=classes,
        templates="clip_kinetics",
        texts=_KINETICS_TEXTS,
        citation=paper,
        notes=_KINETICS_NOTES.format(copies=copies),
        **fields,
    )


def _fold(name: str, number: int, *, title: str, **fields: Any) -> ClassBenchmark:
    return ClassBenchmark(
        name=f"{name}-{number}",
        title=f"{title}, test list of fold {number}",
        source=name,
        options={"fold": number},
        templates="clip_ucf101",
        class_names="words",
        texts=_ACTION_TEXTS,
        notes=_FOLDS_NOTES,
        **fields,
    )


_UCF101: dict[str, Any] = {
    "title": "UCF101",
    "classes": 101,
    "classes_sha256": "85f3ac6c83e8b275bdac26d5f6b193a1ac10b26edcdcfe7d04ba3f54acb1496f",
    "citation": "Soomro, Zamir, Shah: UCF101: A Dataset of 101 Human Actions Classes, 2012",
}
_HMDB51: dict[str, Any] = {
    "title": "HMDB51",
    "videos": 1530,
    "classes": 51,
    "classes_sha256": "298b3fcdbf56979b532cd6ba525de3da38d4e897392d603a9488f1d50d1ade7b",
    "citation": "Kuehne et al.: HMDB: A Large Video Database for Human Motion Recognition, ICCV 2011",
}
_ENTRIES = (
    _kinetics(
        400,
        paper="Kay et al.: The Kinetics Human Action Video Dataset, 2017",
        copies="19,796 validation clips in MMAction2's",
        classes_sha256="ef07025a3b471701840a8e92c73c2bcbddb475875aeb28877e22cbcd44919811",
    ),
    _kinetics(
        600,
        paper="Carreira et al.: A Short Note about Kinetics-600, 2018",
        copies="27,910 validation clips in MMAction2's, 29,793 in CVDF's",
    ),
    _kinetics(
        700,
        paper="Carreira et al.: A Short Note on the Kinetics-700 Human Action Dataset, 2019",
        copies="34,824 validation clips in MMAction2's",
    ),
    *(_fold("ucf101", number, videos=videos, **_UCF101) for number, videos in enumerate((3783, 3734, 3696), start=1)),
    *(_fold("hmdb51", number, **_HMDB51) for number in (1, 2, 3)),
    ClassBenchmark(
        name="ssv2",
        title="Something-Something v2, validation split",
        source="something_v2",
        split="val",
        videos=24777,
        classes=174,
        templates="plain",
        texts={},
        citation='Goyal et al.: The "Something Something" Video Database for Learning and Evaluating Visual Common '
        "Sense, ICCV 2017",
        notes="Classes are sentences with 'something' for each object. Papers that choose among all 174 of them call "
        "it SSv2-MC, with lists of their own: see ssv2-mc.",
    ),
    ClassBenchmark(
        name="charades-mc",
        title="Charades-MC: which of 157 actions occur in a home video",
        source="charades_mc",
        videos=None,
        classes=157,
        templates="name_only",
        rule="softmax_per_template",
        texts={"InternVideo2": "the options, lower case without punctuation; softmax over them at the temperature"},
        citation="Wang et al.: InternVideo2: Scaling Foundation Models for Multimodal Video Understanding, ECCV 2024; "
        "actions of Sigurdsson et al., ECCV 2016",
        notes="Multiple choice by name, but several options are right: the figure is mAP over the options. Each option "
        "ranks all videos, so the softmax over a video's options changes it.",
    ),
)

CLASS_BENCHMARKS: dict[str, ClassBenchmark] = {entry.name: entry for entry in _ENTRIES}
"""All entries by name."""


def class_deviations(entry: ClassBenchmark, *, protocol: Mapping[str, Any]) -> list[str]:
    """Say in what texts and classes differ from the benchmark's protocol, a sentence each.

    Args:
      entry: the benchmark.
      protocol: of the embeddings, with `template_set`, `class_names`, `rule`, `classes_from` and
        `class_texts_sha256`.
    """
    found = []
    for key, name in (("template_set", "templates"), ("class_names", "class_names"), ("rule", "rule")):
        if protocol.get(key) not in (None, getattr(entry, name)):
            found.append(f"{name} is {protocol[key]!r}, the protocol has {getattr(entry, name)!r}")
    if str(protocol.get("classes_from")).startswith("--classes"):
        found.append(f"the classes are those of {protocol['classes_from']}")
    digest = protocol.get("class_texts_sha256")
    if entry.classes_sha256 and digest not in (None, entry.classes_sha256):
        found.append(f"the names of the classes are not the {entry.classes} that papers use")
    return found

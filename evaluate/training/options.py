"""The section `config.evaluations`: name -> protocol, data, schedule, subset."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...base.errors import UserError, unknown
from ...base.section import section
from ..embedding.loaded import CAPTIONS
from ..measures.zero_shot_rules import DEFAULT_RULE
from ..protocols.benchmarks import BENCHMARKS
from ..protocols.class_benchmarks import CLASS_BENCHMARKS
from ..protocols.joint import KINDS
from ..protocols.scored import joint_asked
from ..protocols.templates import DEFAULT

FIELD = "config.evaluations"
RERANK = (*KINDS, "dsl")
"""Methods of re-ranking that need nothing but the split and the model: its heads, or the other queries. They are
written as for `twinreel evaluate --rerank`."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuringOptions:
    """What every entry of `config.evaluations` has.

    Attributes:
      protocol: "retrieval", "zero_shot" or "benchmark:NAME" (see `twinreel evaluate --list`).
      data: prepared folder or its URL; "" = the one that the run trains on (of a mixture the first).
      split: which split of it.
      every: steps between two; None = as config.train.eval_every says, 0 = only at the end.
      subset: measure only so many clips, those whose ids have the smallest hashes: the same at every step, in every run
        and on every host; 0 = all.
      batch_size: clips embedded at a time, over all devices; rounded up to a multiple of them.
      windows: windows of each clip, whose embeddings are averaged; None = config.data.eval_clips.
      window_seconds: length of a window, 0 = the whole clip; None = config.data.window_seconds.
      clip_side: what stands for a clip, "video" or the fused side; "" = the fused side if there is one.
      allow_missing: measure although `prepare` rejected clips of the split, or (zero-shot) labels are no class.
    """

    protocol: str
    data: str = ""
    split: str = "val"
    every: int | None = None
    subset: int = 0
    batch_size: int = 32
    windows: int | None = None
    window_seconds: float | None = None
    clip_side: str = ""
    allow_missing: bool = False

    def __post_init__(self):
        for field, least in (("every", 0), ("subset", 0), ("batch_size", 1), ("windows", 1), ("window_seconds", 0)):
            value = getattr(self, field)
            if value is not None and value < least:
                raise UserError(f"{field} must be at least {least}, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalOptions(DuringOptions):
    """Protocol "retrieval".

    Attributes:
      captions: "all" captions of each clip as queries, or its "first".
      rerank: methods whose re-ranked figures are measured as well, see `RERANK`.
    """

    captions: str = "first"
    rerank: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        _check_rerank(self.rerank)
        if self.captions not in CAPTIONS:
            raise unknown("value of captions", self.captions, CAPTIONS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(DuringOptions):
    """Protocol "benchmark:NAME" of a benchmark of retrieval, on data that were prepared for it.

    Attributes:
      split: "" = as the benchmark says; so are captions and, where they are None, windows and window_seconds.
      rerank: as in `RetrievalOptions`.
    """

    split: str = ""
    rerank: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        _check_rerank(self.rerank)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassOptions(DuringOptions):
    """Protocol "zero_shot".

    Attributes:
      templates, rule, class_names, labels: as in `zero_shot.ZeroShotOptions`.
      classes: a file of classes; "" = the labels of all splits of the data set.
    """

    templates: str = DEFAULT
    rule: str = DEFAULT_RULE
    classes: str = ""
    class_names: str = "as_is"
    labels: str = "all"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassBenchmarkOptions(DuringOptions):
    """Protocol "benchmark:NAME" of a benchmark of classification.

    Attributes:
      split: "" = as the benchmark says; so are templates, class names and, where they are None, windows and
        window_seconds.
      rule: as in `zero_shot.ZeroShotOptions`; "" = as the benchmark says.
    """

    split: str = ""
    rule: str = ""


PROTOCOLS: dict[str, type[DuringOptions]] = {
    "retrieval": RetrievalOptions,
    "zero_shot": ClassOptions,
    **{f"benchmark:{name}": BenchmarkOptions for name in BENCHMARKS},
    **{f"benchmark:{name}": ClassBenchmarkOptions for name in CLASS_BENCHMARKS},
}
"""Protocol -> its options."""


def _check_rerank(methods: Sequence[str]) -> None:
    for given in methods:
        if given.partition(":")[0] not in RERANK:
            raise unknown("method of rerank", given, RERANK)
    joint_asked(methods)


def read_options(values: Mapping[str, Any]) -> dict[str, DuringOptions]:
    """Check `config.evaluations`, name -> fields, and return the options of each.

    Raises:
      UserError: a name that cannot be one, an unknown protocol, a field that the protocol does not have (the nearest is
        named), or a value of another type or out of range.
    """
    found = {}
    for name, fields in values.items():
        where = f"{FIELD}.{name}"
        if not _NAME.fullmatch(name):
            raise UserError(f"{where}: a name is made of letters, digits, '_' and '-': results are logged as NAME/...")
        if not isinstance(fields, Mapping):
            raise UserError(f'{where} is {fields!r}; wanted a section, such as {{"protocol": "retrieval"}}')
        protocol = str(fields.get("protocol", ""))
        if protocol not in PROTOCOLS:
            raise unknown(f"value of {where}.protocol:", protocol, PROTOCOLS)
        try:
            found[name] = section(PROTOCOLS[protocol], fields, name=where.removeprefix("config."))
        except UserError as error:
            raise error if FIELD in str(error) else UserError(f"{where}: {error}") from error
    return found

"""All benchmarks by name, whatever they measure."""

from ...base.errors import unknown
from .benchmark_entry import Entry
from .benchmarks import BENCHMARKS
from .choice_benchmarks import CHOICE_BENCHMARKS
from .class_benchmarks import CLASS_BENCHMARKS


def entries() -> dict[str, Entry]:
    """Return all entries by name: retrieval, classification, multiple choice."""
    return {**BENCHMARKS, **CLASS_BENCHMARKS, **CHOICE_BENCHMARKS}


def find_entry(name: str) -> Entry:
    """Return an entry.

    Raises:
      UserError: no benchmark has that name; the nearest is named.
    """
    known = entries()
    if name not in known:
        raise unknown("benchmark (--benchmark; see `twinreel evaluate --list`)", name, known)
    return known[name]

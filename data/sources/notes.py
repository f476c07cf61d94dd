"""What a source has that no clip uses, or that was read otherwise than it is written: counted, with examples."""

import collections

_EXAMPLES = 3  # names that are kept of each kind
_LONGEST = 120  # characters of a name that are shown


class Notes:
    """Counts what is left out or altered, by a text that says what it is and what to do about it."""

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, what: str, *, name: str = "", count: int = 1) -> None:
        """Count something.

        Args:
          what: the text, with the noun in the plural ("subtitle files left out").
          name: of the file or member, for an example.
          count: how many.
        """
        self._counts[what] += count
        examples = self._examples.setdefault(what, [])
        shown = name.encode("utf-8", "backslashreplace").decode("utf-8")[:_LONGEST]
        if shown and len(examples) < _EXAMPLES and shown not in examples:
            examples.append(shown)

    def update(self, others: "Notes") -> None:
        """Add all that `others` has counted."""
        for what, count in others._counts.items():
            self._counts[what] += count
            examples = self._examples.setdefault(what, [])
            more = [name for name in others._examples[what] if name not in examples]
            examples += more[: _EXAMPLES - len(examples)]

    def counts(self) -> dict[str, int]:
        """Return how often each thing was counted, the most frequent first."""
        return dict(self._counts.most_common())

    def lines(self) -> list[str]:
        """Return a line for each thing: the text, its count, and examples.

        >>> notes = Notes()
        >>> notes.add("subtitle files left out", name="a.vtt", count=2)
        >>> notes.lines()
        ["subtitle files left out: 2 ('a.vtt', ...)"]
        """
        lines = []
        for what, count in self._counts.most_common():
            examples = self._examples[what]
            shown = ", ".join([*map(repr, examples), *(["..."] if len(examples) < count else [])])
            lines.append(f"{what}: {count:,}" + (f" ({shown})" if examples else ""))
        return lines

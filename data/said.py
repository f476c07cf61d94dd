"""What is said within a window of time; a window cuts a sentence between its words, where their times are known."""

from collections.abc import Mapping
from typing import Any


def within(sentence: Mapping[str, Any], *, start_s: float, end_s: float) -> dict[str, Any] | None:
    """Return the part of a sentence that a window holds, its times cut to the window.

    A word belongs to the window that holds its middle. Of a sentence without word times the text is kept whole.

    Args:
      sentence: as `Sentence.to_json` gives it.
      start_s: of the window, in the time of the sentence.
      end_s: of the window, exclusive.

    Returns:
      The same form; None if nothing of it is said within the window.

    >>> line = {"start_s": 1.0, "end_s": 3.0, "text": "go on", "words": [[1.0, 1.8, "go"], [2.0, 3.0, "on"]]}
    >>> within(line, start_s=1.5, end_s=9.0)
    {'start_s': 2.0, 'end_s': 3.0, 'text': 'on', 'words': [[2.0, 3.0, 'on']]}
    >>> within({"start_s": 1.0, "end_s": 3.0, "text": "go on"}, start_s=1.5, end_s=9.0)
    {'start_s': 1.5, 'end_s': 3.0, 'text': 'go on'}
    """
    begin, end, words = sentence["start_s"], sentence["end_s"], sentence.get("words") or []
    if not (begin < end_s and end > start_s):
        return None
    kept = [word for word in words if start_s <= (word[0] + word[1]) / 2 < end_s]
    if words and not kept:
        return None
    text = sentence["text"] if len(kept) == len(words) else " ".join(word[2] for word in kept)
    if len(kept) < len(words):
        begin = begin if kept[0] == words[0] else kept[0][0]
        end = end if kept[-1] == words[-1] else kept[-1][1]
    part = {"start_s": max(begin, start_s), "end_s": min(end, end_s), "text": text}
    cut = [[max(first, start_s), min(last, end_s), word] for first, last, word in kept]
    return part | ({"words": cut} if cut else {})

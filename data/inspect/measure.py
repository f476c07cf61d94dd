"""What is in a prepared folder, in figures: plain functions of the lines of clips.jsonl and rejects.jsonl."""

import collections
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..text.tokenizer import SentencePieceTokenizer, Tokenizer

_BINS = 24
_TOP = 12  # of the sizes, rates and labels that are named
_EXAMPLES = 3  # rejected clips per reason
_AT_ONCE = 10_000  # captions tokenized in one call
_LEAST_BYTES = 24  # UTF-8 bytes of text below which a language is a guess
_SHORT, _UNSURE = "too short to tell", "no letters"


def split_figures(rows: Sequence[dict[str, Any]], *, language: Callable[[str], str]) -> dict[str, Any]:
    """Measure the clips of one split.

    Args:
      rows: its lines of clips.jsonl, at least one.
      language: names the language of a text (`identifier`).

    Returns:
      JSON values: numbers of clips, captions and frames; `spread` of durations (seconds), frames, stored frame rate,
      captions per clip, characters and words per caption; counts of the sizes and rates as stored and of the source.
    """
    captions = [caption for row in rows for caption in row["captions"]]
    seconds = np.array([row["duration_s"] for row in rows])
    frames = np.array([row["num_frames"] for row in rows])
    sources = [row["source"] for row in rows if row.get("source")]
    silent = [row["silent"] for row in rows if "silent" in row]
    return {
        "clips": len(rows),
        "captions": len(captions),
        "distinct_captions": len(set(captions)),
        "frames": int(frames.sum()),
        "hours": round(float(seconds.sum()) / 3600, 4),
        "duration_s": spread(seconds),
        "frames_per_clip": spread(frames),
        "stored_fps": spread(frames / np.maximum(seconds, 1e-9)),
        "stored_sizes": _top(f"{row['width']}x{row['height']}" for row in rows),
        "source_sizes": _top(f"{source['width']}x{source['height']}" for source in sources),
        "source_fps": _top("not stated" if source["fps"] is None else f"{source['fps']:g}" for source in sources),
        "source_codecs": _top(source["codec"] for source in sources),
        "captions_per_clip": spread(np.array([len(row["captions"]) for row in rows])),
        "caption_characters": spread(np.array([len(caption) for caption in captions])),
        "caption_words": spread(np.array([len(caption.split()) for caption in captions])),
        "languages": _top(language(" ".join(row["captions"])) for row in rows),
        "scripts": _top(script(" ".join(row["captions"])) for row in rows),
        "with_sound": sum(row["has_audio"] for row in rows),
        "silent": sum(silent) if silent else None,
        "with_transcript": sum(bool(row["transcript"]) for row in rows),
        "with_sentences": sum(bool(row["sentences"]) for row in rows),
        "grouped": sum(bool(row["group"]) for row in rows),
        "labels": _top(label for row in rows for label in row["labels"][:1]),
        "features": _top(name for row in rows for name in row["features"]),
    }


def token_figures(
    rows: Sequence[dict[str, Any]], *, tokenizer: Tokenizer | None, context_length: int
) -> dict[str, Any]:
    """Return the spread of the captions' tokens, begin and end included, and how many captions are cut at L tokens.

    Without a caption there is nothing to count, and no tokenizer is needed.
    """
    captions = [caption for row in rows for caption in row["captions"]]
    lengths = [np.zeros(0, np.int64)]
    for begin in range(0, len(captions), _AT_ONCE):
        assert tokenizer is not None
        lengths.append(tokenizer.lengths(captions[begin : begin + _AT_ONCE]))
    tokens = np.concatenate(lengths)
    cut = int((tokens > context_length).sum())
    return {
        "tokens": spread(tokens),
        "context_length": context_length,
        "truncated": cut,
        "truncated_share": round(cut / max(1, len(tokens)), 6),
    }


def spread(values: np.ndarray) -> dict[str, Any]:
    """Return least, largest, mean, some percentiles and a histogram (`edges` [n+1], `counts` [n]) of numbers.

    >>> spread(np.array([1, 2, 2, 3]))["counts"]
    [1, 2, 1]
    """
    if not len(values):
        return {"counts": [], "edges": []}
    low, high = float(values.min()), float(values.max())
    if np.issubdtype(values.dtype, np.integer):  # whole numbers: bars of one width that each hold as many of them
        step = max(1, int(np.ceil((high - low + 1) / _BINS)))
        edges = np.arange(low, high + step + 1, step) - 0.5
        edges = edges[: int(np.searchsorted(edges, high)) + 1]
    else:
        edges = np.linspace(low, high, _BINS + 1) if high > low else np.array([low - 0.5, low + 0.5])
    counts, _ = np.histogram(values, bins=edges)
    at = np.percentile(values, [5, 50, 95])
    figures = {"min": low, "p5": at[0], "median": at[1], "mean": values.mean(), "p95": at[2], "max": high}
    return {
        **{name: round(float(value), 4) for name, value in figures.items()},
        "edges": [round(float(edge), 4) for edge in edges],
        "counts": counts.tolist(),
    }


def reject_figures(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count rejected clips by reason, with the first few of each."""
    found: dict[str, Any] = {}
    for line in lines:
        reason, _, detail = line["reason"].partition(": ")
        entry = found.setdefault(reason, {"clips": 0, "examples": []})
        entry["clips"] += 1
        if len(entry["examples"]) < _EXAMPLES:
            entry["examples"].append(line["path"] + (f" ({detail})" if detail else ""))
    return dict(sorted(found.items(), key=lambda item: -item[1]["clips"]))


def identifier() -> tuple[Callable[[str], str], str]:
    """Return a function that names the language of a text (ISO 639-1 code), and how it does it.

    That is py3langid (139 languages, no network) if it is installed; otherwise every text is "unknown", and only the
    scripts tell texts apart. Texts of less than 24 bytes are too short for it.
    """
    try:
        import py3langid
    except ImportError:
        return (lambda text: "unknown"), "not identified: pip install 'twinreel[langid]'"
    classify = py3langid.classify

    def name(text: str) -> str:
        if not any(character.isalpha() for character in text):
            return _UNSURE
        return str(classify(text)[0]) if len(text.encode()) >= _LEAST_BYTES else _SHORT

    return name, "py3langid on the captions of each clip"


def script(text: str) -> str:
    """Return the script of most letters of a text, as Unicode's names of characters begin: `latin`, `cjk`, ...

    >>> script("a dog"), script("собака"), script("一只狗"), script("12 !")
    ('latin', 'cyrillic', 'cjk', 'none')
    """
    letters = [c for c in text if c.isalpha()]
    names = collections.Counter(unicodedata.name(c, "UNNAMED").split()[0].split("-")[0].lower() for c in letters)
    return names.most_common(1)[0][0] if names else "none"


def train_tokenizer(rows: dict[str, list[dict[str, Any]]], *, vocab_size: int) -> Tokenizer | None:
    """Train SentencePiece on the captions of train, as pretraining does, or on all where train has none.

    Args:
      rows: lines of clips.jsonl by split.
      vocab_size: the largest vocabulary.

    Returns:
      The tokenizer; None if no clip has a caption.

    Raises:
      UserError: it cannot be trained on these captions.
    """
    captions = [caption for row in rows.get("train", ()) for caption in row["captions"]]
    captions = captions or [caption for members in rows.values() for row in members for caption in row["captions"]]
    if not captions:
        return None
    try:
        return SentencePieceTokenizer.train(captions, vocab_size=vocab_size)
    except UserError as error:
        raise UserError(f"{error} (or name a tokenizer with --tokenizer)") from error


def _top(values: Any) -> dict[str, int]:
    """Count values: the most frequent ones by name, the rest together as "others"."""
    counts = collections.Counter(values)
    named = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_TOP])
    rest = counts.total() - sum(named.values())
    return named | ({f"others ({len(counts) - len(named)})": rest} if rest else {})

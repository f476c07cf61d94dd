"""Which figures of a prepared folder are shown, under which names: shared by the text and the page of `inspect`."""

from typing import Any

SPREADS = {
    "duration_s": "duration, s",
    "stored_fps": "stored frames per s",
    "frames_per_clip": "frames per clip",
    "captions_per_clip": "captions per clip",
    "caption_characters": "characters per caption",
    "caption_words": "words per caption",
    "tokens": "tokens per caption",
}
COUNTED = {
    "stored_sizes": "stored sizes",
    "source_sizes": "sizes of the source",
    "source_fps": "frame rates of the source",
    "source_codecs": "codecs of the source",
    "languages": "languages (clips)",
    "scripts": "scripts (clips)",
    "labels": "labels",
    "features": "features (clips)",
}


def overview(splits: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the rows of the first table: a name and a cell for each split."""

    def share(found: dict[str, Any], key: str) -> str:
        return "not known" if found[key] is None else f"{100 * found[key] / found['clips']:.1f} %"

    rows = [(name, [f"{found[name.replace(' ', '_')]:,}" for found in splits.values()])
            for name in ("clips", "rejected", "captions", "distinct captions", "frames")]  # fmt: skip
    rows.append(("hours", [f"{found['hours']:,.2f}" for found in splits.values()]))
    for name, key in (
        ("with sound", "with_sound"),
        ("silent track", "silent"),
        ("with transcript", "with_transcript"),
        ("in a group", "grouped"),
    ):
        rows.append((name, [share(found, key) for found in splits.values()]))
    rows.append(("captions cut", [f"{100 * found['truncated_share']:.2f} %" for found in splits.values()]))
    return rows


def remarks(figures: dict[str, Any]) -> list[str]:
    """Return what is worth a sentence: rejects, notes, duplicates, leaks, faults of the records."""
    lines = [
        f"{entry['clips']:,} clips rejected: {reason}, as {'; '.join(entry['examples'])}"
        for reason, entry in figures["rejects"].items()
    ]
    lines += [f"{count:,} clips: {note}" for note, count in figures["notes"].items()]
    found = figures["duplicates"]
    if found is None:
        lines.append("duplicates not known: no clip has a fingerprint")
    elif found["exact"] or found["near"]:
        lines.append(f"{found['exact']:,} exact and {found['near']:,} near duplicates among the clips")
        lines += [f"{n:,} clips of {split} have a duplicate in train" for split, n in found["leaks"].items()]
    for split, count in figures["splits"].items():
        if count["truncated"]:
            lines.append(
                f"{count['truncated']:,} captions of {split} are longer than {count['context_length']} tokens "
                "and would be cut"
            )
    if (verified := figures.get("verified")) is not None:
        lines.append(f"{verified['records']:,} records read, {verified['faults']:,} faults")
        lines += verified["first_faults"]
    return lines

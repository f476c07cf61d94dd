"""The page of descriptions: each clip with its text and the evidence for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...data.media.decode import DecodeError, DecodeOptions, decode_clip
from ...pages.markup import Html, join, tag
from ...pages.page import paragraph, section, write_page
from ...pages.tables import protocol_list
from ...pages.thumbnails import clip_figure, jpeg_uri
from .compose import Described

_SHOWN = 200  # clips of a page
_SENTENCES = 40


def write_describe_page(out: Path, *, found: Sequence[Described], protocol: dict[str, Any]) -> Path:
    """Write `index.html`, which opens from disk without a network.

    Args:
      out: folder of the report, which exists; `descriptions.jsonl` lies in it.
      found: the clips.
      protocol: how the evidence was gathered and what was asked.

    Returns:
      The path of the page.
    """
    shown = found[:_SHOWN]
    note = f"The first {len(shown)} of {len(found):,} clips." if len(shown) < len(found) else ""
    question = protocol.get("question") or ""
    lead = paragraph("Question: ", tag("b", question)) if question else ""
    explain = paragraph(
        "The texts come from a language model that sees no picture: it is given the evidence next to them, and may be "
        "wrong where that is. Cosines are comparable within one list.",
        class_="aside",
    )
    title = "Answers" if question else "Descriptions"
    return write_page(
        out / "index.html",
        kind="descriptions",
        title=Path(protocol["model"]).name or protocol["model"],
        subtitle=f"{len(found):,} clips",
        sections=[
            section(title, lead, explain, paragraph(note, class_="aside") if note else "", *map(_clip, shown)),
            section("Protocol", protocol_list(protocol)),
        ],
        footer=join(["All of it is in ", tag("a", "descriptions.jsonl", href="descriptions.jsonl"), "."]),
    )


def _clip(one: Described) -> Html:
    evidence = one.evidence
    figure = clip_figure(_picture(evidence.path), note=Path(evidence.path).name, caption="", alt=evidence.path)
    text = tag("q", one.text + (" …" if one.cut else "")) if one.text else paragraph("not asked", class_="aside")
    lists = [
        _list("Captions", [(item.text, item.score) for item in evidence.captions], mark=""),
        _list("Class names", [(item.text, item.score) for item in evidence.labels], mark="second"),
        _list("Look-alikes", [(_of(item.path, item.texts), item.score) for item in evidence.neighbours], mark="third"),
    ]
    speech = []
    if evidence.speech_from:
        said = [f"{line.start_s:.1f} s  {line.text}" for line in evidence.speech[:_SENTENCES]] or ["nothing"]
        speech = [tag("h3", f"Speech ({evidence.speech_from})"), *(paragraph(line, class_="aside") for line in said)]
    right = tag("div", text, tag("div", *lists, class_="lists"), *speech)
    return tag("div", figure, right, class_="query")


def _of(path: str, texts: Sequence[str]) -> str:
    return f"{Path(path).name}: {' | '.join(texts)}" if texts else Path(path).name


def _list(title: str, items: Sequence[tuple[str, float]], *, mark: str) -> Html:
    """Texts with their cosines; the bar of each is its share of the best one."""
    if not items:
        return Html("")
    best = max(max(score for _, score in items), 1e-6)
    lines = [
        tag(
            "li",
            tag("span", text),
            tag("span", f"{score:.3f}", style="white-space:nowrap"),
            class_=mark,
            style=f"--share:{max(100 * score / best, 0):.1f}%",
        )
        for text, score in items
    ]
    return tag("div", tag("h3", title), tag("ul", *lines))


def _picture(path: str) -> str | None:
    """A frame of the first second of a file; None where it has none."""
    try:
        clip = decode_clip(path, options=DecodeOptions(fps=2.0, short_side=240, audio=False), end_s=1.0)
    except DecodeError:
        return None
    return jpeg_uri(clip.encoded[-1], side=320)

"""What is no caption is dropped and counted; a label steps in."""

import pytest

from twinreel.data.manifest import Clip
from twinreel.data.sources.captions import clean_captions
from twinreel.data.sources.notes import Notes

INVISIBLE = ["\u200b", "\ufeff\u200d ", "\u2060\u00ad", "\u3164", "\u2800\u2800", "\u200e\x00", "\ufe0f", "\u180e"]


def test_blank_captions_go_and_labels_step_in():
    clips, counts = clean_captions(
        [
            Clip(clip_id="a", path="a", captions=("", " \t", " kept as it is ")),
            Clip(clip_id="b", path="b", captions=("",), labels=("", "push_ups", "x")),
            Clip(clip_id="c", path="c"),
        ]
    )
    assert [clip.captions for clip in clips] == [(" kept as it is ",), ("push ups",), ()]
    assert (counts.empty_dropped, counts.from_labels) == (3, 1)


@pytest.mark.parametrize("caption", INVISIBLE)
def test_captions_of_invisible_characters_are_named(caption):
    notes = Notes()
    given = [
        Clip(clip_id="a", path="a", captions=(caption,)),
        Clip(clip_id="b", path="b", captions=("a dog", caption)),
        Clip(clip_id="c", path="c", captions=(caption,), labels=("run",)),
    ]
    (alone, beside, labelled), counts = clean_captions(given, notes=notes)
    assert alone.meta["refused"] == f"no caption: {caption!a} has no visible character"
    assert (beside.captions, beside.meta) == (("a dog",), {})
    assert (labelled.captions, labelled.meta) == (("run",), {})
    assert counts.empty_dropped == 3
    assert notes.lines() == ["captions of invisible characters dropped: 3 ('a', 'b', 'c')"]


@pytest.mark.parametrize("caption", ["a\u200bb", "👩‍🚀", "\u0301", "ㅤx", "一", "\U0001fae8", "."])
def test_captions_with_something_to_see_stay(caption):
    [clip], _ = clean_captions([Clip(clip_id="a", path="a", captions=(caption,))])
    assert clip.captions == (caption,)

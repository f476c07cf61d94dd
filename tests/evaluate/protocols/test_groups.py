"""Recalls per group against a loop over queries; which fields are taken, and which are refused."""

import numpy as np
import pytest
from fakes import embeddings

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.ranks import hits
from twinreel.evaluate.protocols.groups import check_fields, fields_of, group_block
from twinreel.evaluate.protocols.retrieval import retrieval_ranks
from twinreel.evaluate.results import Further, measure


@pytest.fixture(scope="module")
def fake():
    made = embeddings(noise=2.0)
    for i, row in enumerate(made.rows):
        row["labels"] = [["dog"], ["dog", "cat"], [], ["fish"]][i % 4]
        row["meta"] |= {"age": str(20 + i) if i % 6 else None, "outdoors": i < 12, "source.name": f"s{i // 8}"}
        row["meta"] |= {"nested": {"site": f"n{i // 12}"}, "same": "x", "image_id": i}
    made.captions[0] = made.captions[5]
    made.captions[7] = "one two three four five six seven eight"
    return made


@pytest.fixture(scope="module")
def found(fake):
    ranks = retrieval_ranks(text=fake.text, video=fake.video, video_of_text=fake.video_of_text)
    return group_block(fake, ranks=ranks, group_by=["source.name"]), ranks


def test_fields_that_divide_the_clips_are_taken(found):
    names = ["caption_words", "duration_s", "labels", "meta.camera", "meta.age", "meta.outdoors", "meta.source.name"]
    assert list(found[0]) == [*names, "meta.nested.site"]


def test_recalls_are_those_of_a_loop(fake, found):
    block, ranks = found[0]["meta.camera"], found[1]
    for way, one, clips in zip(("text_to_video", "video_to_text"), ranks, (fake.video_of_text, range(24)), strict=True):
        for name in ("still", "moving"):
            group = block[way]["groups"][name]
            rows = [row for row, clip in enumerate(clips) if fake.rows[clip]["meta"]["camera"] == name]
            assert group["n"] == len(rows) and group["clips"] == 12
            for k in (1, 5, 10):
                wanted = sum(100 * float(hits(one, k=k)[row]) for row in rows) / len(rows)
                assert group[f"R@{k}"]["value"] == pytest.approx(wanted)
                assert group[f"R@{k}"]["low"] <= wanted <= group[f"R@{k}"]["high"]


def test_a_clip_is_in_the_group_of_each_of_its_labels(found):
    field = found[0]["labels"]
    groups = field["text_to_video"]["groups"]
    assert {name: one["clips"] for name, one in groups.items()} == {"dog": 12, "cat": 6, "fish": 6}
    assert field["unknown"] == 6


def test_numbers_as_text_are_numbers(found):
    field = found[0]["meta.age"]
    assert (field["kind"], field["unknown"]) == ("quantiles", 4)
    assert list(field["text_to_video"]["groups"]) == ["21–25", "27–31", "33–37", "39–43"]


def test_groups_of_captions_have_no_direction_from_videos_with_several(fake, found):
    assert "video_to_text" not in found[0]["caption_words"]
    single = embeddings(captions=1)
    single.captions[3] += " and one more"
    ranks = retrieval_ranks(text=single.text, video=single.video, video_of_text=single.video_of_text)
    assert group_block(single, ranks=ranks)["caption_words"]["video_to_text"]["groups"]["10"]["n"] == 1


def test_repeated_texts_are_a_group_where_there_are_enough():
    fake = embeddings(captions=1)
    fake.captions[:8] = ["the same"] * 8
    (field,) = (one for one in fields_of(fake) if one.name == "repeated_text")
    assert dict(zip(field.groups.names, field.groups.members.sum(axis=0).tolist(), strict=True)) == {
        "on one clip": 16,
        "on several clips": 8,
    }


def test_a_field_that_no_clip_has_is_named_with_the_nearest(fake):
    for check in (lambda: fields_of(fake, group_by=["camra"]), lambda: check_fields(fake.rows, group_by=["camra"])):
        with pytest.raises(UserError, match="unknown field \\(--group_by\\) 'camra'; did you mean 'camera'"):
            check()
    with pytest.raises(UserError, match="does not divide the clips: its values are x"):
        fields_of(fake, group_by=["same"])


def test_arrays_alone_have_no_groups():
    fake = embeddings()
    fake.captions = []
    assert "groups" not in measure(fake)
    with pytest.raises(UserError, match="without captions and clips"):
        measure(fake, further=Further(group_by=["width"]))


def test_groups_are_marked_where_clips_are_missing(fake):
    one = embeddings()
    one.coverage = {"expected": 25, "found": 24, "missing": 1, "fraction": 0.96, "missing_clips": []}
    group = measure(one)["groups"]["meta.camera"]["text_to_video"]["groups"]["still"]
    assert group["marked"] and group["R@1"]["marked"]
    assert "groups" not in measure(one, intervals=False)
    assert np.isfinite(group["R@1"]["value"])

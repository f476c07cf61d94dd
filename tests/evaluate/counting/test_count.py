"""Counting in blocks, on the host and on devices: against loops over all pairs, whatever the blocks and devices."""

import numpy as np
import pytest
from count_case import FIELDS, case, on_devices

from twinreel.evaluate.counting import devices as on_device
from twinreel.evaluate.counting.count import CountOptions, count_ranks
from twinreel.evaluate.counting.questions import QUESTIONS, TEXT_TO_VIDEO, VIDEO_TO_TEXT, Pairs

TILES = [(4096, 1 << 20, 1, None), (4096, 4096, 3, True), (16_384, 20_000, 8, None)]


def by_loops(text, video, video_of_text, same_text):
    """Counts of all questions from scores of whole pairs, video by video and text by text."""
    unit = [(rows / np.sqrt((rows * rows).sum(axis=1, keepdims=True))) for rows in map(np.float64, (text, video))]
    scores = np.rint((unit[0][:, None] * unit[1]).sum(axis=2) * 2.0**40)
    held = [set(same_text[video_of_text == j].tolist()) for j in range(len(video))]
    any_right = np.array([[number in held[j] for j in range(len(video))] for number in same_text.tolist()])
    own = video_of_text[:, None] == np.arange(len(video))
    captioned = np.unique(video_of_text)

    def counts(wrong, right):
        best = max(right)
        return sum(s > best for s in wrong), sum(s == best for s in wrong), sum(s == best for s in right)

    def among_groups(j, right):
        wrong, good = [], []
        for other in captioned:
            for kind, found in ((True, good), (False, wrong)):
                mine = scores[(video_of_text == other) & (right[:, j] == kind), j]
                found.extend([mine.max()] if len(mine) else [])
        return counts(wrong, good)

    made = {
        "text_to_video": [counts(scores[i, ~own[i]], scores[i, own[i]]) for i in range(len(text))],
        "text_to_video_any_match": [counts(scores[i, ~r], scores[i, r]) for i, r in enumerate(any_right)],
        "video_to_text": [among_groups(j, own) for j in captioned],
        "video_to_text_any_match": [among_groups(j, any_right) for j in captioned],
        "video_to_text_among_captions": [
            (*counts(scores[~own[:, j], j], scores[own[:, j], j])[:2], 1) for j in captioned
        ],
    }
    return {name: np.array(rows, np.int64).T for name, rows in made.items()}


def check(got, want):
    for name, fields in want.items():
        for field, values in zip(FIELDS, fields, strict=True):
            assert (np.broadcast_to(getattr(got[name], field), np.shape(values)) == values).all(), (name, field)


@pytest.mark.parametrize(
    "given",
    [
        {"videos": 61, "captions": 1},
        {"videos": 61, "captions": 1, "kinds": 5, "uncaptioned": 3},
        {"videos": 45, "captions": 5, "uncaptioned": 4},
        {"videos": 45, "captions": 9, "kinds": 4, "uncaptioned": 4},
        {"videos": 33, "captions": 3, "kinds": 1},
        {"videos": 33, "captions": 3, "spread": 1e-6},  # nearer to each other than float32 products can tell
    ],
    ids=str,
)
def test_all_counts_are_those_of_loops_whatever_the_blocks_and_devices(given):
    arrays = case(1, **given)
    want = by_loops(**arrays)
    pairs = Pairs(**arrays)
    for host_bytes in (1, 4000, 1 << 20):
        check(count_ranks(QUESTIONS, pairs=pairs, options=CountOptions(host_bytes=host_bytes)), want)
    for tile_bytes, gallery_bytes, devices, compact in TILES:
        sizes = {"tile_bytes": tile_bytes, "gallery_bytes": gallery_bytes}
        options = on_devices(**sizes, devices=devices, compact=compact)
        check(count_ranks(QUESTIONS, pairs=pairs, options=options), want)


@pytest.mark.parametrize("devices", [1, 2])
def test_open_pairs_are_gathered_on_accelerators(devices, monkeypatch):
    """Few pairs are open here, so the host fetches none of the words that hold a bit of each pair."""
    arrays, whole = case(3, videos=4096, captions=1, uncaptioned=4032), []
    monkeypatch.setattr(on_device, "unpacked", lambda words, old=on_device.unpacked: whole.append(1) or old(words))
    both = []
    for compact in (False, True):
        whole.clear()
        options = on_devices(tile_bytes=1 << 16, devices=devices, compact=compact)
        both.append(count_ranks(QUESTIONS, pairs=Pairs(**arrays), options=options))
        assert bool(whole) is not compact
    check(both[1], {name: [getattr(one, field) for field in FIELDS] for name, one in both[0].items()})


@pytest.mark.parametrize("question", [TEXT_TO_VIDEO, VIDEO_TO_TEXT])
def test_a_question_alone_has_the_same_counts(question):
    arrays = case(5, videos=40, captions=3)
    found = count_ranks([question], pairs=Pairs(**arrays), options=on_devices(devices=3))
    check(found, {question: by_loops(**arrays)[question]})

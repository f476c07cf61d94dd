"""The questions of the demo's clips, answered again from the events in their meta."""

import re
from collections import Counter

import pytest
from shape_words import MOTION, SHAPE

from twinreel.demo import moving_shapes
from twinreel.demo.questions import TYPES


@pytest.fixture(scope="module")
def clips():
    jobs = moving_shapes.plan(seed=0, train=300, val=2, test=40, fps=12)
    return [moving_shapes._clip(job, fps=12) for job in jobs]


def named(words, text):
    return [name for name, pattern in words.items() if re.search(rf"\b({pattern})\b", text)]


def test_every_answer_follows_from_the_events(clips):
    counts = Counter()
    for clip in clips:
        events, tone = clip.meta["events"], clip.meta["tone"]
        for one in clip.questions:
            (answer,), asked = one.answers, one.question
            counts[one.type] += 1
            fits = [e for e in events if re.search(rf"\b({SHAPE[e['shape']]})\b", asked)]
            if one.type == "count":
                assert answer == {2: "two", 3: "three"}[len(events)]
            elif one.type == "after":
                known = re.search(r"after the (.*)\?", asked).group(1)
                places = [
                    i for i, e in enumerate(events) if re.fullmatch(f"{e['colour']} ({SHAPE[e['shape']]})", known)
                ]
                assert len(places) == 1 and events[places[0] + 1]["shape"] == answer
            elif one.type == "colour":
                motion = {e["colour"] for e in events if re.search(MOTION[e["motion"]], asked)}
                assert answer in motion
            elif one.type == "motion":
                assert [e["motion"] for e in fits if f"the {e['colour']} " in asked] == [answer]
            elif one.type == "is there":
                there = any(re.search(f"that ({MOTION[e['motion']]})", asked) for e in fits)
                assert (answer == "yes") == there
            elif one.type == "tone":
                assert answer == tone["motion"]
            elif one.type == "pitch":
                assert answer == tone["pitch"]
            else:
                word = {"rises": "rising", "falls": "falling", "beeps": "beeping", "stays": "steady"}[tone["motion"]]
                assert (answer == "yes") == (word in asked)
    assert set(counts) == set(TYPES) and min(counts.values()) > 0.9 * len(clips)


def test_yes_and_no_are_equally_likely_and_the_wording_is_drawn_by_the_clip(clips):
    for kind in ("is there", "sound"):
        said = [one.answers[0] for clip in clips for one in clip.questions if one.type == kind]
        assert 0.4 < said.count("yes") / len(said) < 0.6
    again = moving_shapes.plan(seed=0, train=300, val=2, test=40, fps=12)
    assert [moving_shapes._clip(job, fps=12).questions for job in again] == [clip.questions for clip in clips]

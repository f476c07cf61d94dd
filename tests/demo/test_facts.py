"""Facts in captions of the demo's clips: all captions are read back, figures by hand, what cannot be read."""

import json

import pytest

from twinreel.base.errors import UserError
from twinreel.demo import moving_shapes
from twinreel.demo.demo import main
from twinreel.demo.facts import ATTRIBUTES, read_facts, score


def event(text):
    return dict(zip(ATTRIBUTES, text.split(", "), strict=True))


RED, BLUE = event("small, plain, red, disc, falls"), event("large, striped, blue, star, slides left")


def test_every_caption_that_the_demo_writes_is_read_back():
    count = 0
    for job in moving_shapes.plan(seed=3, train=200, val=10, test=50, fps=12):
        for caption in job.captions:
            for said, true in zip(read_facts(caption), job.events, strict=True):
                assert {"size": true.size} | said == dict(zip(ATTRIBUTES, true.attributes, strict=True)), caption
            count += 1
        assert all("size" in said for said in read_facts(job.captions[0]))  # the first names every attribute
    assert count > 500


def test_words_that_say_nothing_are_left_out():
    assert read_facts("a box") == [{"texture": "plain", "shape": "square"}]
    assert read_facts("a steady tone plays") == [] == read_facts("")
    assert [one["shape"] for one in read_facts("a box, a ring falls")] == ["square", "ring"]
    assert "motion" not in read_facts("a box, a ring falls")[0]
    said = read_facts("A big red plus sign gets smaller after a ring with dots while a high tone falls")
    assert said == [
        {"texture": "dotted", "shape": "ring"},
        {"size": "large", "texture": "plain", "colour": "red", "shape": "cross", "motion": "shrinks"},
    ]


def test_figures_of_four_captions_by_hand():
    captions = {
        "a": "a small red disc falls, then a large striped blue star slides left",  # all right
        "b": "a small red disc falls, then a large striped blue star slides left",  # the twin's order
        "c": "a red circle drops",  # one event of two: texture, colour, shape, motion
        "d": "a large blue star with stripes turns before a small red disc rises; next, a ring",
    }
    truth = {"a": [RED, BLUE], "b": [BLUE, RED], "c": [RED, BLUE], "d": [BLUE, RED]}
    found = score(captions, truth=truth, twins={"a": "b", "b": "a", "c": "d"})
    assert found == pytest.approx(
        {
            "clips": 4,
            "events": 2 / 4,
            "exact": 1 / 4,
            "attributes": (10 + 0 + 4 + 8) / 40,
            "size": (2 + 0 + 0 + 2) / 8,
            "texture": (2 + 0 + 1 + 2) / 8,
            "colour": (2 + 0 + 1 + 2) / 8,
            "shape": (2 + 0 + 1 + 2) / 8,
            "motion": (2 + 0 + 1 + 0) / 8,
            "twins": (1 + 0 + 1) / 3,
            "clips_with_twin": 3,
        }
    )
    assert score({"a": "nothing"}, truth=truth, twins={"a": "b"})["twins"] == 0.5
    with pytest.raises(UserError, match="no captions to read"):
        score({}, truth=truth, twins={})
    with pytest.raises(UserError, match="clip 'x' is none of the demo's"):
        score({"x": "a red disc falls"}, truth=truth, twins={})


def test_the_verb_reads_a_file_of_captions(tmp_path, capsys):
    videos = tmp_path / "videos"
    moving_shapes.write(videos, train=2, val=0, test=4, fps=6, workers=1, progress=False)
    rows = [json.loads(line) for line in (videos / "manifest.jsonl").read_text().splitlines()]
    file = tmp_path / "captions.json"
    clips = [{"clip_id": row["clip_id"], "caption": row["captions"][0]} for row in rows if row["split"] == "test"]
    file.write_text(json.dumps({"clips": clips}))
    assert main(["--workdir", str(tmp_path), "--facts", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "captions of 4 clips" in printed and printed.count("100.0") == 9
    file.write_text("[]")
    with pytest.raises(UserError, match=r"is no captions\.json of `twinreel caption"):
        main(["--workdir", str(tmp_path), "--facts", str(file)])

"""Other projects' figures: exact on data without ties, within bounds where their sorting routine decides."""

import math

import numpy as np
import pytest
from evaluate_golden import TIED, UNTIED, arrays, figures, retrieval_case

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.published import READINGS, describe, read_as
from twinreel.evaluate.measures.published.reading import Reading

CASES = (*UNTIED, *TIED, "nan12")
# (reading, key in the golden file) -> options
SOURCES = {
    ("clip4clip", "clip4clip"): {},
    ("frozen", "frozen_in_time"): {},
    ("collaborative-experts", "collaborative_experts"): {},
    ("internvideo2-clip", "internvideo2_clip"): {},
    ("internvideo2", "internvideo2_mm"): {},
    ("clip-benchmark", "clip_benchmark"): {},
    ("mmeb-v2", "vlm2vec_mmeb_v2"): {},
    ("mteb", "mteb"): {},
    ("open-clip", "open_clip/now"): {"version": "now"},
    ("open-clip", "open_clip/until_2026"): {"version": "until_2026"},
    ("internvideo1", "internvideo1_dsl/logit_scale=1"): {"logit_scale": 1.0},
    ("internvideo1", "internvideo1_dsl/logit_scale=100"): {"logit_scale": 100.0},
    ("pe", "perception_models/raw"): {"reweight_scale": None},
    ("pe", "perception_models/reweight_scale=1"): {"reweight_scale": 1.0},
    ("pe", "perception_models/reweight_scale=10"): {"reweight_scale": 10.0},
    ("pe", "perception_models/reweight_scale=100"): {"reweight_scale": 100.0},
}


def wanted(case, key):
    found = figures("retrieval")[case]
    for part in key.split("/"):
        found = found.get(part, {})
    return {path: value for path, value in leaves(found) if not (isinstance(value, str) and value.startswith("raises"))}


def leaves(block, path=()):
    for key, value in block.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]


def read(case, name, options):
    scores, owner = retrieval_case(case)
    if name == "pe" and f"{case}/texts" in arrays("retrieval"):
        options = options | {"texts": arrays("retrieval")[f"{case}/texts"].tolist()}
    if case == "nan12":
        options = options | {"allow_nan": True}
        if name.startswith(("internvideo2", "open-clip")):  # these take embeddings: one NaN spreads along its text
            scores = np.where(np.isnan(scores).any(axis=1, keepdims=True), np.nan, scores)
    return read_as(name, scores=scores, video_of_text=owner, **options)


PAIRS = [(case, *source) for case in CASES for source in SOURCES if wanted(case, source[1])]


@pytest.mark.parametrize(("case", "name", "key"), PAIRS)
def test_every_figure_of_the_other_code_comes_out(case, name, key):
    reading = read(case, name, SOURCES[name, key])
    high, low = dict(leaves(reading.optimistic)), dict(leaves(reading.pessimistic))
    for path, want in wanted(case, key).items():
        want = float(want)
        if math.isinf(want):
            assert high[path] == low[path] == want
        else:
            bottom, top = sorted((low[path], high[path]))
            assert bottom - 2e-6 * max(1, abs(want)) <= want <= top + 2e-6 * max(1, abs(want)), path
    if case in UNTIED:
        assert reading.exact


@pytest.mark.parametrize("case", TIED)
@pytest.mark.parametrize("name", ["clip4clip", "frozen", "collaborative-experts", "mteb"])
def test_codes_that_settle_ties_are_exact_on_tied_data(case, name):
    if name == "clip4clip" and case.startswith("mc"):
        assert not read(case, name, {}).exact  # text-to-video with several captions is torch's argsort
    else:
        assert read(case, name, {}).exact


def test_every_reading_is_compared_and_described():
    assert {name for _, name, _ in PAIRS} == set(READINGS)
    lines = {describe(name) for name in READINGS}
    assert len(lines) == len(READINGS)
    assert all(": " in line and line.endswith(".") for line in lines)


def test_captions_in_another_order_give_the_same_figures():
    scores, owner = retrieval_case("mcvar")
    order = np.random.default_rng(0).permutation(len(owner))
    for name in READINGS:
        if name != "open-clip":
            one = read_as(name, scores=scores, video_of_text=owner)
            other = read_as(name, scores=scores[order], video_of_text=owner[order])
            assert dict(leaves(one.figures)) == pytest.approx(dict(leaves(other.figures))), name


def test_ids_decide_the_ties_of_mteb():
    scores, owner = np.ones((3, 3)), np.arange(3)
    found = read_as("mteb", scores=scores, video_of_text=owner, video_ids=["a", "c", "b"]).figures["t2v"]
    assert found["MRR@10"] == pytest.approx((1 / 3 + 1 + 1 / 2) / 3)
    with pytest.raises(UserError, match="'columns_of_scores' has 3 entries and 'video_ids' has 2"):
        read_as("mteb", scores=scores, video_of_text=owner, video_ids=["a", "b"])


@pytest.mark.parametrize("name", sorted(READINGS))
def test_bad_input_is_refused(name):
    scores, owner = retrieval_case("nan12")
    row, column = np.argwhere(np.isnan(scores))[0]
    with pytest.raises(UserError, match=f"row {row} and column {column} is nan"):
        read_as(name, scores=scores, video_of_text=owner)
    with pytest.raises(UserError, match="'video_of_text'"):
        read_as(name, scores=np.ones((3, 3)), video_of_text=np.arange(2))
    with pytest.raises(UserError, match="wanted numbers"):
        read_as(name, scores=np.ones((0, 3)), video_of_text=np.arange(0))
    with pytest.raises(UserError, match="has no option 'scale'"):
        read_as(name, scores=np.ones((3, 3)), video_of_text=np.arange(3), scale=1)


def test_names_versions_and_forms_that_do_not_exist():
    with pytest.raises(UserError, match="did you mean 'clip4clip'"):
        read_as("clip4clp", scores=np.ones((3, 3)), video_of_text=np.arange(3))
    with pytest.raises(UserError, match="unknown version 'old'"):
        read_as("open-clip", scores=np.ones((3, 3)), video_of_text=np.arange(3), version="old")
    with pytest.raises(UserError, match="exactly one text per video; there are 3 texts, 2 videos"):
        read_as("open-clip", scores=np.ones((3, 2)), video_of_text=np.array([0, 0, 1]))
    with pytest.raises(UserError, match="'scores' has 3 entries and 'texts' has 2"):
        read_as("pe", scores=np.ones((3, 3)), video_of_text=np.arange(3), texts=["a", "b"])


def test_bounds_show_in_the_figures():
    reading = Reading(optimistic={"t2v": {"R1": 2.0, "R5": 3.0}}, pessimistic={"t2v": {"R1": 1.0, "R5": 3.0}})
    assert reading.figures == {"t2v": {"R1": [1.0, 2.0], "R5": 3.0}}
    assert not reading.exact

"""Scores of any origin through the verb: figures, other codes' readings and re-ranking, beside the golden numbers."""

import json

import numpy as np
import pytest
from evaluate_golden import arrays, figures, retrieval_case

from twinreel.base.errors import UserError
from twinreel.evaluate.evaluate import main
from twinreel.evaluate.protocols.scored import check_size

CASES = ("sq500", "mcvar", "mc60x20_ties", "sq40_ties")


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a score file."""

    def write(name="mcvar", **more):
        scores, owner = retrieval_case(name)
        np.savez(tmp_path / "scores.npz", **({"scores": scores, "video_of_text": owner} | more))
        return str(tmp_path / "scores.npz")

    return write


def measured(capsys, *argv):
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("case", CASES)
def test_figures_are_those_of_the_definition(case, file, capsys):
    found, wanted = measured(capsys, "--scores", file(case)), figures("retrieval")[case]["definition"]
    directions = {"text_to_video": wanted["t2v"], "video_to_text": wanted["v2t_among_videos"]}
    if case.startswith("mc"):
        directions["video_to_text_among_captions"] = wanted["v2t_among_captions"]
    for block, own in directions.items():
        for key in ("R@1", "R@5", "R@10", "R@50", "MdR", "MnR"):
            names = {"expected": found[block], "optimistic": found[block]["optimistic"]}
            for rule, got in (names | {"pessimistic": found[block]["pessimistic"]}).items():
                assert got[key] == pytest.approx(own[rule][key], abs=1e-9), (block, rule, key)


def test_intervals_of_recalls_are_those_of_drawn_videos(file, capsys):
    found = measured(capsys, "--scores", file("sq500"))
    for direction in ("text_to_video", "video_to_text"):
        for key, ends in found["intervals"][direction].items():
            share, half = found[direction][key] / 100, (ends["high"] - ends["low"]) / 2
            assert half == pytest.approx(196 * np.sqrt(share * (1 - share) / 500), rel=0.12)  # one text a video
            assert ends["low"] < found[direction][key] < ends["high"]
    wide = measured(capsys, "--scores", file("mcvar"))["intervals"]["text_to_video"]["R@1"]
    assert wide["high"] - wide["low"] > 1.2 * 2 * 196 * np.sqrt(0.304 * 0.696 / 79)  # captions of a video go together


def test_readings_and_reranked_rows(file, capsys):
    flags = ["--as", "clip4clip", "--as", "internvideo1:logit_scale=1", "--rerank", "dsl:scale=100"]
    found, wanted = measured(capsys, "--scores", file("sq500"), *flags), figures("retrieval")["sq500"]
    read = found["read_as"]["clip4clip"]
    assert read["exact"] and read["figures"]["t2v"]["R1"] == pytest.approx(wanted["clip4clip"]["t2v"]["R1"])
    assert "every place of a tie" in read["about"]
    assert set(found["read_as"]) == {"clip4clip", "internvideo1:logit_scale=1"}
    assert found["reranked"]["dsl:scale=100"]["text_to_video"]["R@1"] == pytest.approx(38.6)
    assert found["hubness"]["text_to_video"]["skewness"] != 0
    assert main(["--scores", file("sq40_ties"), "--as", "mmeb-v2", "--rerank", "dsl"]) == 0
    told = capsys.readouterr().out
    assert "as mmeb-v2: " in told and " to " in told and "re-ranked: dsl:scale=100" in told


def test_query_bank(file, capsys):
    scores, bank = (retrieval_case(name)[0] for name in ("qb_test", "qb_bank"))
    path = file(scores=scores, video_of_text=np.arange(40), bank=bank)
    found = measured(capsys, "--scores", path, "--rerank", "qb_norm", "--rerank", "qb_norm:beta=100,k=1")
    assert found["text_to_video"]["R@1"] == pytest.approx(15.0)
    assert found["reranked"]["qb_norm:beta=20,k=1"]["text_to_video"]["R@1"] == pytest.approx(40.0)
    assert found["reranked"]["qb_norm:beta=100,k=1"]["text_to_video"]["R@1"] == pytest.approx(37.5)


def test_captions_with_equal_words_share_their_videos_in_the_reading_of_pe(file, capsys):
    texts = arrays("retrieval")["sq40_dup/texts"]
    path = file("sq40_dup", texts=texts)
    found = measured(capsys, "--scores", path, "--as", "pe:reweight_scale=none")["read_as"]
    assert found["pe:reweight_scale=none"]["figures"]["video_retrieval_recall@1"] == pytest.approx(0.6)


def test_embeddings_are_read_and_reranked_as_their_scores_are(tmp_path, capsys):
    rng = np.random.default_rng(0)
    text, video, owner = rng.normal(size=(30, 8)), rng.normal(size=(12, 8)), np.arange(30) % 12
    np.savez(tmp_path / "e.npz", text=text, video=video, video_of_text=owner)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text, video)]
    np.savez(tmp_path / "s.npz", scores=unit[0] @ unit[1].T, video_of_text=owner)
    flags = ["--as", "frozen", "--as", "clip-benchmark", "--rerank", "dsl:scale=10"]
    ours = measured(capsys, "--embeddings", str(tmp_path / "e.npz"), *flags, "--out", str(tmp_path / "out"))
    given = measured(capsys, "--scores", str(tmp_path / "s.npz"), *flags)
    for key in ("read_as", "reranked"):
        assert ours[key] == given[key]
    for block in ("text_to_video", "video_to_text", "video_to_text_among_captions"):
        assert all(given[block][key] == value for key, value in ours[block].items() if "imistic" not in key)
    assert json.loads((tmp_path / "out" / "retrieval.json").read_text())["read_as"] == ours["read_as"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "among captions" in page and "As other code prints it" in page and "Text → video, dsl:scale=10" in page


@pytest.mark.parametrize(
    ("more", "flags", "message"),
    [
        ({}, ["--as", "clip4clap"], r"--as 'clip4clap'.*did you mean 'clip4clip'"),
        ({}, ["--as", "pe:scale=1"], r"parameter of --as pe: 'scale'.*reweight_scale"),
        ({}, ["--as", "pe:reweight_scale"], r"'reweight_scale' has no value; write pe:reweight_scale=VALUE"),
        ({}, ["--as", "open-clip"], r"'open_clip' needs exactly one text per video"),
        ({}, ["--rerank", "dls"], r"--rerank 'dls'.*did you mean 'dsl'"),
        ({}, ["--rerank", "dsl:scale=-1"], r"scale of the dual softmax is -1"),
        ({}, ["--rerank", "qb_norm"], r"needs training texts as a query bank.*'bank' \[b,m\]"),
        ({}, ["--embeddings", "e.npz"], r"got both --embeddings 'e\.npz' and --scores"),
        ({}, ["--data", "x"], r"thumbnails of a page, and scores have none"),
        ({"video_of_text": np.full(79, 20)}, [], r"scores\.npz: 'video_of_text'\[0\] is 20; wanted an index"),
        ({"texts": np.array(["a"])}, [], r"'texts' has 1 entries; wanted 79"),
        ({"texts": np.zeros(79)}, [], r"'texts' is float64 of shape \(79,\); wanted strings"),
    ],
)
def test_mistakes(more, flags, message, file):
    with pytest.raises(UserError, match=message):
        main(["--scores", file(**more), *flags])


def test_a_score_that_is_not_finite_is_named_by_its_ids(file):
    scores = retrieval_case("mcvar")[0].copy()
    scores[3, 2] = np.nan
    ids = {"text_ids": np.array([f"t{i}" for i in range(79)]), "video_ids": np.array([f"v{i}" for i in range(20)])}
    with pytest.raises(UserError, match=r"'?t3'?.*'?v2'?.*nan"):
        main(["--scores", file(scores=scores, **ids)])


def test_a_matrix_that_would_not_fit_is_refused():
    check_size(20_000, 20_000)
    with pytest.raises(UserError, match=r"1,000,000 texts by 1,000,000 videos take 7451 GiB"):
        check_size(1_000_000, 1_000_000)

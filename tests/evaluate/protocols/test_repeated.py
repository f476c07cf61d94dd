"""Retrieval where captions repeat: against a loop over all orders of the tied, other people's code, and the verb."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from fakes import embeddings

from twinreel.base.errors import UserError
from twinreel.evaluate import evaluate, results
from twinreel.evaluate.counting.count import CountOptions
from twinreel.evaluate.measures.ranks import Ranks, ranks, summary
from twinreel.evaluate.protocols import repeated as protocol
from twinreel.evaluate.protocols.directions import all_ranks, text_to_video, video_to_text
from twinreel.evaluate.protocols.repeated import caption_numbers
from twinreel.evaluate.protocols.retrieval import retrieval_report

GOLDEN = Path(__file__).parents[2] / "golden" / "retrieval_repeated_texts.npz"
BLOCKS = {"text_to_video_any_match", "video_to_text_any_match"}


def with_scores(scores):
    """Unit rows of texts and videos whose cosines are `scores` [texts, videos], up to one factor."""
    factor = 2.0 ** -np.ceil(np.log2(np.linalg.norm(scores, axis=1).max() + 1))
    rest = np.sqrt(1 - (factor**2 * scores**2).sum(axis=1, keepdims=True))
    return np.concatenate([factor * scores, rest], axis=1), np.eye(scores.shape[1], scores.shape[1] + 1)


def first_right(items):
    """Ranks of the first right item over all orders of equal scores; items are (score, right)."""
    best = max(score for score, right in items if right)
    above = sum(score > best for score, _ in items)
    tied = [right for score, right in items if score == best]
    # Which places the right ones take is all that matters, and every choice is equally likely.
    return [above + 1 + min(places) for places in itertools.combinations(range(len(tied)), sum(tied))]


def figures(per_query):
    """The block of `summary` from the possible ranks of each query."""
    block = {}
    for name, take in (
        ("", lambda function, possible: float(np.mean([function(rank) for rank in possible]))),
        ("optimistic", lambda function, possible: function(min(possible))),
        ("pessimistic", lambda function, possible: function(max(possible))),
    ):
        found = {
            f"R@{k}": 100 * np.mean([take(lambda rank, k=k: rank <= k, possible) for possible in per_query])
            for k in (1, 5, 10)
        }
        rank = [take(lambda rank: rank, possible) for possible in per_query]
        block[name] = found | {"MdR": np.median(rank), "MnR": np.mean(rank)}
    return block


def check(block, per_query):
    want = figures(per_query)
    for name, expected in want.items():
        got = block[name] if name else block
        assert {key: got[key] for key in expected} == pytest.approx(expected, rel=1e-12), name
    assert block["n"] == len(per_query)


def any_match(**arrays):
    return protocol.any_match(all_ranks(**arrays), **arrays)


def random_case(seed, *, levels):
    """Nine clips of one to three captions out of five texts, scores of a few levels, equal rows for equal texts."""
    rng = np.random.default_rng(seed)
    video_of_text = np.sort(np.concatenate([np.arange(9), rng.integers(0, 9, 6)]))
    video_of_text = rng.permutation(video_of_text)
    numbers = rng.integers(0, 5, len(video_of_text))
    text, video = with_scores(rng.integers(0, levels, (5, 10)) / 64)  # clip 9 has no caption
    return text[numbers], video, video_of_text, numbers


@pytest.mark.parametrize("levels", [1, 2, 3, 60])
@pytest.mark.parametrize("seed", [0, 1])
def test_both_directions_equal_a_loop_over_all_orders_of_the_tied(seed, levels):
    text, video, index, numbers = random_case(seed, levels=levels)
    scores = np.round(text @ video.T, 9)
    own = {clip: {numbers[i] for i in np.flatnonzero(index == clip)} for clip in range(10)}
    blocks = any_match(text=text, video=video, video_of_text=index, same_text=numbers)

    check(
        blocks["text_to_video_any_match"],
        [first_right([(scores[i, j], numbers[i] in own[j]) for j in range(10)]) for i in range(len(text))],
    )
    per_clip = []
    for clip in range(9):
        items = []
        for other in range(9):  # a clip competes with its best caption; captions of the query's own words are apart
            for right in (True, False):
                found = [scores[i, clip] for i in np.flatnonzero(index == other) if (numbers[i] in own[clip]) is right]
                items += [(max(found), right)] if found else []
        per_clip.append(first_right(items))
    check(blocks["video_to_text_any_match"], per_clip)

    classes = sorted(set(numbers.tolist()))
    row = {number: scores[np.flatnonzero(numbers == number)[0]] for number in classes}
    per_clip = [first_right([(row[n][clip], n in own[clip]) for n in classes]) for clip in range(9)]
    found, want = blocks["zero_shot_classification"], figures(per_clip)
    assert found["top1"] == pytest.approx(want[""]["R@1"])
    assert found["optimistic"] == {"top1": pytest.approx(want["optimistic"]["R@1"])}
    assert found["pessimistic"] == {"top1": pytest.approx(want["pessimistic"]["R@1"])}
    assert (found["classes"], found["n"]) == (len(classes), 9)
    assert found["chance"] == pytest.approx(100 * np.mean([len(own[clip]) / len(classes) for clip in range(9)]))


def test_figures_equal_those_of_code_that_shares_videos_between_equal_captions():
    """PE's zero-shot retrieval on the same scores; it does not promise an order among equals."""
    golden = np.load(GOLDEN)
    text, video = with_scores(golden["scores"])
    numbers = np.unique(golden["texts"], return_inverse=True)[1]
    blocks = any_match(text=text, video=video, video_of_text=np.arange(40), same_text=numbers)
    for direction, printed in (
        ("text_to_video", {"R@1": 60.0, "R@5": 82.5, "R@10": 90.0}),
        ("video_to_text", {"R@1": 55.0, "R@5": 82.5, "R@10": 87.5}),
    ):
        block = blocks[f"{direction}_any_match"]
        for key, value in printed.items():
            assert block["pessimistic"][key] - 1e-9 <= value <= block["optimistic"][key] + 1e-9
    assert "zero_shot_classification" not in blocks  # 36 texts of 40


@pytest.mark.parametrize("chunk_bytes", [1, 700])
def test_chunks_do_not_change_the_ranks(chunk_bytes):
    text, video, index, numbers = random_case(3, levels=3)
    for direction in (text_to_video, video_to_text):
        arrays = {"video": video, "video_of_text": index, "same_text": numbers}
        whole, parts = (
            direction(text, **arrays),
            direction(text, **arrays, options=CountOptions(host_bytes=chunk_bytes)),
        )
        for field in ("above", "equal", "right"):
            assert (getattr(whole, field) == getattr(parts, field)).all()


def test_one_text_for_all_clips_is_always_right_and_so_is_chance():
    fake = embeddings(videos=5, captions=1)
    same = np.zeros(5, int)
    blocks = any_match(text=fake.text, video=fake.video, video_of_text=fake.video_of_text, same_text=same)
    for direction in ("text_to_video", "video_to_text"):
        block = blocks[f"{direction}_any_match"]
        assert (block["R@1"], block["MnR"], block["chance_R@1"]) == (100, 1, 100)
    found = blocks["zero_shot_classification"]
    assert (found["top1"], found["chance"], found["classes"]) == (100, 100, 1)


def test_without_repetition_nothing_is_added():
    fake = embeddings()
    report = retrieval_report(text=fake.text, video=fake.video, video_of_text=fake.video_of_text)
    assert not BLOCKS & set(report) and "any_match" not in report["protocol"]
    # A clip that has one caption twice shares it with no other clip.
    twice = any_match(text=fake.text, video=fake.video, video_of_text=fake.video_of_text, same_text=fake.video_of_text)
    assert twice == {}


def test_captions_are_compared_as_the_model_reads_them():
    fake = embeddings(videos=3, captions=1)
    fake.captions = ["A dog", "a  dog", "a cat"]
    assert caption_numbers(fake).tolist() == [0, 1, 2]
    fake.protocol["text_cleaning"] = "collapse_spaces|lower"
    assert caption_numbers(fake).tolist() == [0, 0, 1]
    # Equal embeddings of different texts are ties, not repetitions: a collapsed text tower stays at chance.
    fake.text[:] = 1.0
    assert results.measure(fake)["protocol"]["distinct_texts"] == 2


def test_many_tied_candidates():
    """Among 2 right and 8 wrong, all tied, a right one is first in 1 of 5 orders and in the first nine in all."""
    block = summary(Ranks(above=np.array([0]), equal=np.array([8]), right=np.array([2])))
    assert block["R@1"] == pytest.approx(20)
    assert block["R@5"] == pytest.approx(100 * (1 - (5 * 4) / (10 * 9)))
    assert block["R@10"] == 100
    assert block["MnR"] == pytest.approx(1 + 8 / 3)


def test_a_query_needs_a_right_candidate():
    with pytest.raises(UserError, match="a right candidate in each row"):
        ranks(np.zeros((2, 3)), positives=np.array([[True, False, False], [False, False, False]]))


def repeated(tmp_path, texts):
    fake = embeddings(videos=len(texts), captions=1, groups=False, noise=0.1)
    place = [texts.index(text) for text in texts]
    fake.captions, fake.text = list(texts), fake.text[place]
    for row, text in zip(fake.rows, texts, strict=True):
        row["captions"] = [text]
    fake.save(tmp_path / "e.npz")
    return str(tmp_path / "e.npz")


@pytest.mark.parametrize(
    ("texts", "line", "classified"),
    [
        (["a", "b", "a", "b", "a", "b"], "4 of 6 texts repeat another", True),
        (["a", "b", "c", "a"], "1 of 4 texts repeats another", False),
        (["a", "b", "c"], None, False),
    ],
)
def test_the_terminal_says_how_many_texts_repeat(tmp_path, capsys, texts, line, classified):
    assert evaluate.main(["--embeddings", repeated(tmp_path, texts)]) == 0
    printed = capsys.readouterr().out
    assert (line in printed) if line else ("another" not in printed)
    assert ("text to video, any match" in printed) is bool(line)
    assert ("Zero-shot classification" in printed) is classified


def test_the_page_shows_the_rows(tmp_path):
    path = repeated(tmp_path, ["a", "b", "a", "b", "a", "b"])
    assert evaluate.main(["--embeddings", path, "--out", str(tmp_path / "r")]) == 0
    results = json.loads((tmp_path / "r" / "retrieval.json").read_text())
    assert set(results) >= BLOCKS | {"zero_shot_classification"}
    page = (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    for text in ("Text → video, any match", "Video → text, any match", "4 of 6 texts repeat another", "same text"):
        assert text in page


def shared_by_hand(text, video, owner, same):
    """The mean rank of captions where equal captions and copies of clips share their partners, and what is right."""
    copies = [next(j for j in range(len(video)) if (video[j] == row).all()) for row in video]
    partners = {(same[i], copies[owner[i]]) for i in range(len(text))}
    right = np.array([[(same[i], copies[j]) in partners for j in range(len(video))] for i in range(len(text))])
    unit_text, unit_video = (rows / np.linalg.norm(rows, axis=1)[:, None] for rows in (text, video))
    scores = np.round(unit_text @ unit_video.T, 9)
    return ranks(scores, positives=right).expected.mean(), right


def test_copies_of_clips_share_their_captions_only_where_asked_for(tmp_path, capsys):
    """Clips 0 and 3 are copies with captions of their own; captions 1 and 4 are equal."""
    rng = np.random.default_rng(4)
    video, text, owner = rng.normal(size=(6, 5)), rng.normal(size=(7, 5)), np.array([0, 1, 2, 3, 4, 5, 5])
    video[3], text[4] = video[0], text[1]
    np.savez(tmp_path / "e.npz", text=text, video=video, video_of_text=owner)
    found = []
    for flags in ([], ["--share_duplicates"]):
        assert evaluate.main(["--embeddings", str(tmp_path / "e.npz"), "--json", *flags]) == 0
        found.append(json.loads(capsys.readouterr().out))
    plain, shared = found
    assert "text_to_video_shared_duplicates" not in plain and shared["protocol"]["duplicate_videos"] == 1
    assert shared["text_to_video"] == plain["text_to_video"]
    wanted, right = shared_by_hand(text, video, owner, [0, 1, 2, 3, 1, 5, 6])
    assert right[0].tolist() == [True, False, False, True, False, False] and right[1, [1, 4]].all()
    assert shared["text_to_video_shared_duplicates"]["MnR"] == pytest.approx(wanted)
    assert shared["video_to_text_shared_duplicates"]["MnR"] <= shared["video_to_text_any_match"]["MnR"]
    assert evaluate.main(["--embeddings", str(tmp_path / "e.npz"), "--share_duplicates"]) == 0
    assert "text to video, duplicates shared" in capsys.readouterr().out

"""Tasks along time from a bundle to report and predictions, on the generated clips, whose events have times."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from files import lines
from small_encoder import small_encoder

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.data.text.tokenizer import tokenizer_from_meta
from twinreel.encode.media.files import clips_of_files
from twinreel.evaluate.measures.moments import highlight_detection
from twinreel.evaluate.measures.spans import grounding
from twinreel.finetune.commands import predict
from twinreel.finetune.commands.finetune import finetune
from twinreel.finetune.examples.queries import Queries
from twinreel.zoo.load import load_model, locate

SHORT = [
    *("data.batch_size=8", "data.num_frames=4", "task.width=16", "task.heads=2", "task.depth=1", "train.steps=6"),
    *("train.log_every=1", "train.eval_every=3", "train.checkpoint_every=2", "optimizer.warmup_steps=1"),
]


@pytest.fixture(scope="module")
def start(tiny_data, tmp_path_factory):
    """A function (config, workdir, overrides) -> report; the towers are random ones."""
    root = tmp_path_factory.mktemp("along_time")
    small_encoder().save(root / "towers")

    def start(name, workdir, *overrides):
        config = load_config(name, overrides=[f"data.dir={tiny_data}", *SHORT, *overrides])
        return finetune(config, init=root / "towers", workdir=workdir)

    start.root = root
    return start


@pytest.fixture(scope="module")
def moments(start):
    """Workdir and report of moments by text."""
    return start.root / "moments", start("demo_localise", start.root / "moments", "task.levels=2")


def test_the_report_is_of_every_query_of_the_test_split(moments, tiny_data):
    workdir, report = moments
    rows = Records(tiny_data).rows("test")
    whole = json.loads((workdir / "report" / "localisation.json").read_text())
    asked = [(row["clip_id"], span["text"]) for row in rows for span in row["spans"]]
    assert [(one["clip_id"], one["text"]) for one in whole["examples"]] == asked and report["n"] == len(asked)
    truth = [one["truth"][0] for one in whole["examples"]]
    assert truth == [[span["start_s"], span["end_s"]] for row in rows for span in row["spans"]]
    found = grounding([[span[:2] for span in one["found"]] for one in whole["examples"]], truth=truth)
    for name, value in found.items():
        assert whole["grounding"][name] == pytest.approx(value, abs=0.1), name  # times are rounded to milliseconds
    for one in whole["examples"]:
        scores = [span[2] for span in one["found"]]
        assert scores == sorted(scores, reverse=True) and 1 <= len(scores) <= 10
    assert whole["baseline"]["grounding"]["R@1,IoU>0.5"] > 0
    page = (workdir / "report" / "index.html").read_text()
    pictures = re.findall(r'src="([^"]+)"', page)
    assert len(pictures) == len(rows) and all((workdir / "report" / picture).is_file() for picture in pictures)
    assert "http" not in page and page.count('class="timeline"') == len(rows)


def test_validation_chooses_the_checkpoint(moments):
    workdir, report = moments
    values = [(line["val/mIoU"], -line["step"]) for line in lines(workdir, "eval")]
    assert report["protocol"]["checkpoint_step"] == -max(values)[1] and len(values) == 2


def test_texts_find_moments_in_files(moments, tiny_data, capsys):
    clip = Records(tiny_data).rows("test")[0]
    file, texts = str(tiny_data.parent / "videos" / clip["file"]), [span["text"] for span in clip["spans"]]
    asked = [flag for text in texts for flag in ("--text", text)]
    capsys.readouterr()
    assert predict.main([str(moments[0]), file, *asked, "--json", "--top_k", "0"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["path"], one["text"]) for one in printed] == [(file, text) for text in texts]
    located = locate(moments[0])
    [(rows, _)] = clips_of_files(located.spec.input, [Path(file)], batch_size=1)
    tokenizer = tokenizer_from_meta(dict(located.spec.tokenizer))
    ids, mask, _ = tokenizer.encode(texts, context_length=located.spec.input.context_length)
    found = load_model(located)(np.repeat(rows["video"], len(texts), axis=0), query=ids, query_mask=mask)
    for i, one in enumerate(printed):
        assert one["duration_s"] == pytest.approx(clip["duration_s"], abs=0.1)
        best = np.asarray(found.scores[i, :, 0]).argmax()  # the best step is the first span
        wanted = np.clip(np.asarray(found.spans[i, best]), 0, 1) * one["duration_s"]
        np.testing.assert_allclose([one["spans"][0]["start_s"], one["spans"][0]["end_s"]], wanted, atol=0.01)
    with pytest.raises(UserError, match=r"needs a text that says what to find \(--text\)"):
        predict.main([str(moments[0]), file])
    with pytest.raises(UserError, match="looks at each file as a whole"):
        predict.main([str(moments[0]), file, *asked, "--windows", "2"])
    assert predict.main([str(moments[0]), file, *asked]) == 0 and "text" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"write texts=\['red'\]"):
        twinreel.load(moments[0]).predict([file], texts="red")


def test_actions_by_labels_of_time_steps(start, tiny_data, capsys):
    """With a CRF over a GRU: spans do not overlap, and are whole time steps."""
    report = start("demo_localise:crf", start.root / "crf", "task.encoder=gru", "task.min_count=1")
    names = sorted({span["label"] for row in Records(tiny_data).rows("train") for span in row["spans"]})
    assert report["n"] == 8 and 0 <= report["average"] <= 1 and set(report["per_class"]) <= set(names)
    assert twinreel.load(start.root / "crf").labels == tuple(names)
    clip = Records(tiny_data).rows("test")[0]
    file = tiny_data.parent / "videos" / clip["file"]
    [found] = twinreel.load(start.root / "crf").predict([file])
    edges = sorted((span["start_s"], span["end_s"]) for span in found["spans"])
    assert all(a[1] <= b[0] + 1e-6 for a, b in itertools.pairwise(edges))
    steps = np.array(edges).ravel() / found["duration_s"] * 4
    np.testing.assert_allclose(steps, steps.round(), atol=0.01)
    with pytest.raises(UserError, match="takes no text: it finds"):
        predict.main([str(start.root / "crf"), str(file), "--text", "red"])
    capsys.readouterr()
    assert predict.main([str(start.root / "crf"), str(file)]) == 0
    assert ("class" if found["spans"] else "nothing") in capsys.readouterr().out.replace("\n", "")


@pytest.fixture(scope="module")
def highlights(start):
    """Workdir and report of highlights by text, from cached features."""
    return start.root / "highlights", start("demo_highlight", start.root / "highlights")


def test_highlights_are_scored_and_reported(highlights, tiny_data, capsys):
    workdir, report = highlights
    whole = json.loads((workdir / "report" / "highlights.json").read_text())
    rows = Records(tiny_data).rows("test")
    spans = [(row["duration_s"], span) for row in rows for span in row["spans"]]
    truth, guesses = [], []
    for i, ((duration, span), one) in enumerate(zip(spans, whole["examples"], strict=True)):
        count = int(duration / 0.25 + 1e-6)
        middles = [(k + 0.5) * duration / count for k in range(count)]
        marked = [k for k, t in enumerate(middles) if span["start_s"] <= t < span["end_s"]]
        assert [k for k, mark in enumerate(one["marks"]) if mark] == marked and len(one["scores"]) == count
        truth.append(
            {"qid": i, "duration": 2 * count, "relevant_clip_ids": marked, "saliency_scores": [[4]] * len(marked)}
        )
        guesses.append({"qid": i, "pred_saliency_scores": one["scores"]})
    wanted = highlight_detection(guesses, truth=truth)
    assert report["levels"]["VeryGood"] == pytest.approx(wanted["VeryGood"], abs=1.0)  # scores have four decimals
    assert 20 < report["chance"] < 60
    file = str(tiny_data.parent / "videos" / rows[0]["file"])
    capsys.readouterr()
    assert predict.main([str(workdir), file, "--text", spans[0][1]["text"], "--json"]) == 0
    [printed] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    times = [(moment["start_s"], moment["end_s"]) for moment in printed["moments"]]
    assert times[0][0] == 0 and times[-1][1] == pytest.approx(printed["duration_s"], abs=1e-3)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(times))
    assert predict.main([str(workdir), file, "--text", "red"]) == 0


def test_a_run_that_dies_goes_on_as_if_nothing_was(start, highlights, monkeypatch):
    """From the records instead of the features: the same examples in the same order, before and after."""
    attach = Queries.attach

    def dying(self, batches, *, encode):
        for number, batch in enumerate(attach(self, batches, encode=encode)):
            if number == 5:
                raise RuntimeError("killed")
            yield batch

    monkeypatch.setattr(Queries, "attach", dying)
    again = start.root / "again"
    with pytest.raises(RuntimeError, match="killed"):
        start("demo_highlight", again, "task.cache_features=False")
    monkeypatch.setattr(Queries, "attach", attach)
    report = start("demo_highlight", again, "task.cache_features=False")
    losses = [{line["step"]: line["loss"] for line in lines(folder, "train")} for folder in (highlights[0], again)]
    assert sorted(losses[0]) == list(range(1, 7)) and losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert report["levels"] == highlights[1]["levels"]


@pytest.mark.parametrize(
    ("config", "override", "wanted"),
    [
        ("demo_localise", "task.query=txt", r"config\.task\.query: 'txt'.*did you mean 'text'"),
        ("demo_localise", "task.labels=('falls',)", "set query='label'"),
        ("demo_localise:label", "task.labels=('fals',)", "did you mean 'falls'"),
        ("demo_localise", "task.levels=4", "at most the 4 time tokens"),
        ("demo_localise", "task.nms=1.5", "an overlap from 0 to 1"),
        ("demo_localise", "task.labelling=crv", "did you mean 'crf'"),
        ("demo_localise", "task.encoder=gro", "did you mean 'gru'"),
        ("demo_localise", "task.width=15", "must be even and a multiple of config.task.heads=2"),
        ("demo_localise", "data.eval_sampling=first", "does not spread the frames over the whole clip"),
        ("demo_localise", "data.window_seconds=1.0", "looks at the whole clip once"),
        ("demo_localise", "task.query=annotated", "is for summarise"),
        ("demo_highlight", "task.query=label", "is for localise"),
        ("demo_highlight", "task.query=annotated", "is for summarise"),
        ("demo_highlight", "task.moment_seconds=0.0", "moment_seconds must be above 0"),
    ],
)
def test_mistakes_are_named_before_the_workdir_is_taken(start, config, override, wanted):
    with pytest.raises(UserError, match=wanted):
        start(config, start.root / "refused", override)
    assert not (start.root / "refused").exists()

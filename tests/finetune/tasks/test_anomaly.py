"""Anomalies from labels of whole films: from a bundle to the report and to scores of files, on generated films."""

import itertools
import json
import re
import types

import numpy as np
import pytest
from files import lines
from sklearn.metrics import roc_auc_score
from small_encoder import small_encoder

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.data.prepare.prepare import prepare
from twinreel.demo import odd_films
from twinreel.finetune.commands import predict
from twinreel.finetune.commands.finetune import finetune
from twinreel.finetune.inputs.feed import Feed
from twinreel.finetune.tasks import anomaly

SHORT = [
    *("data.batch_size=8", "data.num_frames=4", "data.window_seconds=2.0", "data.train_clips=3"),
    *("task.width=16", "task.top_k=2", "task.dilations=(1,)", "task.smooth=1"),
    *("train.steps=6", "train.log_every=1", "train.eval_every=3", "train.checkpoint_every=2"),
    "optimizer.warmup_steps=1",
]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Folder of the records; the files lie in `odd/` next to it."""
    folder = tmp_path_factory.mktemp("films")
    manifest = odd_films.write(folder / "odd", train=16, val=8, test=8, size=32, workers=1, progress=False)
    prepare(manifest, out=folder / "data", fps=6.0, short_side=24, workers=1)
    return folder / "data"


@pytest.fixture(scope="module")
def start(films, tmp_path_factory):
    """A function (workdir, overrides) -> report; the towers are random ones."""
    root = tmp_path_factory.mktemp("anomaly")
    small_encoder().save(root / "towers")

    def start(workdir, *overrides, config="demo_anomaly"):
        config = load_config(config, overrides=[f"data.dir={films}", *SHORT, *overrides])
        return finetune(config, init=root / "towers", workdir=workdir)

    start.root = root
    return start


@pytest.fixture(scope="module")
def odd(start):
    """Workdir and report of a run on cached features."""
    return start.root / "odd", start(start.root / "odd")


def test_the_report_is_of_all_frames_of_the_test_films(odd, films):
    workdir, report = odd
    whole = json.loads((workdir / "report" / "anomalies.json").read_text())
    rows = Records(films).rows("test")
    assert [(one["clip_id"], one["label"]) for one in whole["films"]] == [(r["clip_id"], r["labels"][0]) for r in rows]
    scores, truth = [], []
    for one, row in zip(whole["films"], rows, strict=True):
        edges = one["edges_s"]
        assert edges[0] == 0 and edges[-1] == pytest.approx(row["duration_s"], abs=1e-3)
        assert all(0 < b - a <= 0.5 + 1e-3 for a, b in itertools.pairwise(edges))  # four steps of two seconds
        times = (np.arange(round(row["duration_s"] * 12)) + 0.5) / 12
        scores += [one["scores"][max(i for i, edge in enumerate(edges[:-1]) if edge <= time)] for time in times]
        truth += [any(span["start_s"] <= time < span["end_s"] for span in row["spans"]) for time in times]
    assert report["frames"]["frames"] == len(truth) and report["frames"]["abnormal"] == sum(truth)
    assert report["frames"]["auc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)
    assert report["sultani"]["frames"] == len(truth) and report["rtfm"]["frames"] % 16 == 0
    assert set(report["by_label"]) == {"flickers", "rises"} and 0 < report["changes"]["auc"] < 1
    page = (workdir / "report" / "index.html").read_text()
    pictures = re.findall(r'src="([^"]+)"', page)
    assert len(pictures) == len(rows) and all((workdir / "report" / picture).is_file() for picture in pictures)
    assert "http" not in page.replace("http://www.w3.org", "")


def test_validation_chooses_the_checkpoint(odd):
    workdir, report = odd
    values = [(line["val/AUC"], -line["step"]) for line in lines(workdir, "eval")]
    assert report["protocol"]["checkpoint_step"] == -max(values)[1] and len(values) == 2


def test_files_have_the_scores_of_their_records(odd, films, capsys):
    workdir, report = odd
    rows = Records(films).rows("test")
    files = [str(films.parent / "odd" / rows[i]["file"]) for i in (1, 0)]
    listed = {one["clip_id"]: one for one in json.loads((workdir / "report" / "anomalies.json").read_text())["films"]}
    best = str(workdir / "checkpoints" / str(report["protocol"]["checkpoint_step"]))
    assert predict.main([best, *files, "--json", "--threshold", "0.0", "--workers", "1"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["path"] for one in printed] == files
    for one, i in zip(printed, (1, 0), strict=True):
        scores = [moment["score"] for moment in one["moments"]]
        wanted = listed[rows[i]["clip_id"]]
        np.testing.assert_allclose(scores, wanted["scores"], atol=2e-5)
        assert one["score"] == pytest.approx(max(scores), abs=1e-4)
        assert [(span["start_s"], span["end_s"]) for span in one["spans"]] == [(0, one["duration_s"])]
    assert predict.main([str(workdir), files[0], "--threshold", "0.999", "--workers", "1"]) == 0
    assert "nothing" in capsys.readouterr().out
    model = twinreel.load(workdir)
    assert model.seconds == 2.0 and set(model.labels) == {"normal", "flickers", "rises"}
    for flags, wanted in (
        (["--threshold", "1.5"], "must be a score from 0 to 1"),
        (["--text", "red"], "no text asks the model"),
        (["--windows", "2"], "leave --windows out"),
    ):
        with pytest.raises(UserError, match=wanted):
            predict.main([str(workdir), files[0], *flags])


def test_a_run_that_dies_goes_on_as_if_nothing_was(start, odd, monkeypatch):
    """From the records instead of the features: the same bags in the same order, before and after."""
    train = Feed.train

    def dying(self, clips, *, start_step):
        for number, batch in enumerate(train(self, clips, start_step=start_step)):
            if number == 5:
                raise RuntimeError("killed")
            yield batch

    monkeypatch.setattr(Feed, "train", dying)
    again = start.root / "again"
    with pytest.raises(RuntimeError, match="killed"):
        start(again, "task.cache_features=False")
    monkeypatch.setattr(Feed, "train", train)
    report = start(again, "task.cache_features=False")
    losses = [{line["step"]: line["loss"] for line in lines(folder, "train")} for folder in (odd[0], again)]
    assert sorted(losses[0]) == list(range(1, 7)) and losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert report["frames"] == pytest.approx(odd[1]["frames"], rel=1e-3)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("task.loss=rankng", r"config\.task\.loss: 'rankng'.*did you mean 'ranking'"),
        (
            "task.normal=('Normal',)",
            r"are abnormal.*config\.task\.normal=\['Normal'\].*labels: flickers, normal, rises",
        ),
        ("task.labels=('normal','flikers')", "did you mean 'flickers'"),
        ("task.top_k=13", "at most the 12 time steps of a bag"),
        ("task.width=6", "must be a multiple of 4"),
        ("task.dropout=1.0", r"config\.task\.dropout must be at least 0 and below 1"),
        ("task.smooth=-1", r"config\.task\.smooth must be at least 0"),
        ("data.window_seconds=0.0", r"set config\.data\.window_seconds to their length"),
        ("data.eval_sampling=first", "does not spread the frames over the whole clip"),
        ("data.train_clips=0", r"config\.data\.train_clips must be at least 1"),
    ],
)
def test_mistakes_are_named_before_the_workdir_is_taken(start, override, wanted):
    with pytest.raises(UserError, match=wanted):
        start(start.root / "refused", override)
    assert not (start.root / "refused").exists()


@pytest.mark.parametrize("metric", ["val/AUC", "val/film_AUC"])
def test_validation_films_of_one_kind_have_no_figure(monkeypatch, metric):
    """As where all normal ones turn out to be damaged: a number that is not known ends no training."""
    film = types.SimpleNamespace(abnormal=True, marked=False, found=types.SimpleNamespace(scores=np.ones(2)))
    task = object.__new__(anomaly.Anomaly)
    task.splits, task._validation = types.SimpleNamespace(validation="films"), []
    monkeypatch.setattr(anomaly.Anomaly, "_films", lambda self, model, **given: [film])
    monkeypatch.setattr(anomaly.Anomaly, "metric", metric)
    found = task.evaluate(None, 1)
    assert metric.removeprefix("val/") in found and all(np.isnan(value) for value in found.values())

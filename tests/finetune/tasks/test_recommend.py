"""Recommendation: from a bundle to the report and to what comes next, on clips by colour and sessions of them."""

import json
import re

import numpy as np
import pytest
from files import lines
from small_encoder import drawn_encoder

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.finetune.commands import predict
from twinreel.finetune.commands.finetune import finetune
from twinreel.finetune.tasks import recommend as task

SHORT = [
    *("data.batch_size=8", "data.num_frames=4", "data.eval_video=resize_short(16)|center_crop(16)"),
    *("task.embed_dim=8", "task.negatives=8", "task.max_length=4", "task.k=3", "task.dropout=0.0"),
    *("train.steps=6", "train.log_every=1", "train.eval_every=3", "train.checkpoint_every=2"),
    "optimizer.warmup_steps=1",
]


@pytest.fixture(scope="module")
def start(colours, tmp_path_factory):
    """A function (workdir, overrides) -> report; the towers are random ones. Users like one colour."""
    root, rng = tmp_path_factory.mktemp("recommend"), np.random.default_rng(0)
    drawn_encoder().save(root / "towers")
    records = Records(colours / "data")
    rows = [row for split in records.splits for row in records.rows(split)]
    by_colour = {name: [r["clip_id"] for r in rows if r["labels"] == [name]] for name in ("red", "green", "blue")}
    sessions = []
    for i in range(30):
        own = by_colour[("red", "green", "blue")[i % 3]]
        split = "train" if i < 18 else "val" if i < 24 else "test"
        chosen = [own[j] for j in rng.permutation(len(own))[: 3 + i % 4]]
        sessions.append({"session": f"u{i}", "clips": chosen, "split": split})
    (root / "sessions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in sessions))

    def start(workdir, *overrides):
        given = [f"data.dir={colours / 'data'}", f"task.sessions={root / 'sessions.jsonl'}"]
        given += [f"task.features_dir={root / 'features'}", *SHORT, *overrides]
        return finetune(load_config("demo_recommend:attention", overrides=given), init=root / "towers", workdir=workdir)

    start.root, start.sessions, start.rows = root, sessions, rows
    return start


@pytest.fixture(scope="module")
def tuned(start):
    """Workdir and report of a finished run."""
    return start.root / "tuned", start(start.root / "tuned")


def test_the_report_is_of_the_last_clips_of_test_sessions(tuned, start):
    workdir, report = tuned
    whole = json.loads((workdir / "report" / "recommendation.json").read_text())
    assert report["sessions"] == 6 and whole["protocol"]["clips"] == len(start.rows)
    tests = {one["session"]: one["clips"] for one in start.sessions if one["split"] == "test"}
    assert {one["session"]: [*one["history"], one["next"]] for one in whole["examples"]} == tests
    assert report["model"]["MRR"] == pytest.approx(np.mean([1 / one["rank"] for one in whole["examples"]]))
    left = [len(start.rows) - len(clips) + 1 for clips in tests.values()]  # those that the history has come last
    by_chance = np.mean([np.mean(1 / np.arange(1, count + 1)) for count in left])
    assert report["random"]["MRR"] == pytest.approx(by_chance) and report["popularity"]["users"] == 6
    page = (workdir / "report" / "index.html").read_text()
    pictures = set(re.findall(r'src="([^"]+)"', page))
    assert pictures and all((workdir / "report" / picture).is_file() for picture in pictures)
    best = max(lines(workdir, "eval"), key=lambda line: (line["val/nDCG@3"], -line["step"]))
    assert report["protocol"]["checkpoint_step"] == best["step"]


def test_what_comes_next_after_clips_and_after_files(tuned, colours, start, capsys):
    workdir, _ = tuned
    shown = json.loads((workdir / "report" / "recommendation.json").read_text())["examples"][0]
    argv = [str(workdir), *shown["history"], "--json", "--top_k", "5", "--workers", "1"]
    assert predict.main(argv) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["clip_id"] for one in printed] == [one["clip_id"] for one in shown["recommended"]]
    assert printed[0]["score"] == pytest.approx(shown["recommended"][0]["score"], abs=1e-5)
    files = {row["clip_id"]: str(colours / row["file"]) for row in start.rows}
    model = twinreel.load(workdir)
    found = model.predict([files[clip] for clip in shown["history"]], count=len(model.clip_ids), workers=1)
    own = {one["clip_id"]: one["score"] for one in found}
    assert len(own) == len(model.clip_ids)
    assert own[printed[0]["clip_id"]] == pytest.approx(printed[0]["score"], abs=0.02)  # frames are decoded anew
    assert predict.main([str(workdir), *shown["history"]]) == 0 and printed[0]["clip_id"] in capsys.readouterr().out
    for argv, wanted in (
        (["nobody"], "neither in the catalogue nor a file.*'nobody'"),
        ([*shown["history"], "--text", "red"], "no text asks the model"),
        ([*shown["history"], "--threshold", "0.5"], "leave it out"),
    ):
        with pytest.raises(UserError, match=wanted):
            predict.main([str(workdir), *argv])


def test_a_run_that_dies_goes_on_as_if_nothing_was(start, tuned, monkeypatch):
    whole = task.session_batches

    def dying(*args, **given):
        for number, batch in enumerate(whole(*args, **given)):
            if number == 5:
                raise RuntimeError("killed")
            yield batch

    monkeypatch.setattr(task, "session_batches", dying)
    again = start.root / "again"
    with pytest.raises(RuntimeError, match="killed"):
        start(again)
    monkeypatch.setattr(task, "session_batches", whole)
    report = start(again)
    losses = [{line["step"]: line["loss"] for line in lines(folder, "train")} for folder in (tuned[0], again)]
    assert sorted(losses[0]) == list(range(1, 7)) and losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert report["model"] == tuned[1]["model"]


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("task.session=atention", r"config\.task\.session: 'atention'.*did you mean 'attention'"),
        ("task.sessions=none.jsonl", r"config\.task\.sessions='none\.jsonl' does not exist"),
        ("task.item_splits=('train','tset')", "did you mean 'test'"),
        ("task.item_splits=('val',)", "it is not in the data set"),
        ("task.train_towers=True", "learns from the features of a frozen tower"),
        ("task.cache_features=False", "learns from the features of a frozen tower"),
        ("task.heads=3", r"config\.task\.embed_dim=8 must be a multiple of config\.task\.heads=3"),
        ("task.k=0", r"config\.task\.k must be at least 1"),
        ("data.batch_size=24", "batch_size=24 is larger than the 18 sessions of split 'train'"),
    ],
)
def test_mistakes_are_named_before_the_workdir_is_taken(start, override, wanted):
    with pytest.raises(UserError, match=wanted):
        start(start.root / "refused", override)
    assert not (start.root / "refused").exists()

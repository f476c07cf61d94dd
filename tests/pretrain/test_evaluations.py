"""`config.evaluations`: several protocols during training, each on its own schedule, checked before the first step."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from files import lines
from forks import Forked
from worker_evaluate import opened as opened_alone

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.pipeline import eval_batches
from twinreel.data.batches.records import Records
from twinreel.data.options import DataOptions, FeedOptions
from twinreel.encode.predict.captioner import load_captioner
from twinreel.engine.keeping.checkpoint import steps_in
from twinreel.evaluate.caption import caption_split
from twinreel.evaluate.protocols.class_benchmarks import CLASS_BENCHMARKS
from twinreel.evaluate.training.opened import chosen_clips, open_evaluation
from twinreel.evaluate.training.options import read_options
from twinreel.launch.local import free_port
from twinreel.pretrain.pretrain import pretrain

SUBSET = 5


@pytest.fixture(scope="module")
def other_data(tmp_path_factory, tiny_data):
    """The same records at another place."""
    return shutil.copytree(tiny_data, tmp_path_factory.mktemp("other") / "data")


@pytest.fixture(scope="module")
def config(tiny_overrides, other_data):
    overrides = [*tiny_overrides, "train.steps=5", "train.best_metric=colours/top1", "train.checkpoint_every=4"]
    made = load_config("demo", overrides=overrides)
    with made.unlocked():
        made.evaluations.val.every = 0
        made.evaluations.part = {
            "protocol": "retrieval",
            "split": "test",
            "subset": SUBSET,
            "every": 3,
            "rerank": ["dsl"],
        }
        made.evaluations.colours = {"protocol": "zero_shot", "data": str(other_data), "split": "test", "every": 2}
        made.model.heads = {"captioning": {"kind": "decoder", "width": 16, "depth": 1, "heads": 2}}
        made.loss.terms = {"captioning": {"weight": 2.0}}
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory, config):
    workdir = tmp_path_factory.mktemp("run") / "run"
    return workdir, pretrain(config, workdir=workdir)


def test_a_run_with_a_decoder_describes_clips(run, tiny_data):
    """From pretraining on: its loss is logged, and the checkpoint writes captions that are texts of the tokenizer."""
    losses = [line["loss_captioning"] for line in lines(run[0], "train")]
    assert len(losses) == 5 and losses[-1] < losses[0]
    captioner = load_captioner(run[0], options={"max_tokens": 3})
    found = caption_split(captioner, data=tiny_data, split="val")
    assert found["captions"]["n"] == 8 and all(one["score"] < 0 for one in found["clips"])


def encoded(workdir, data, split):
    """Embeddings of the first captions and the clips of a split, by the encoder's own functions."""
    encoder, rows = twinreel.load(workdir), Records(data).rows(split)
    options = DataOptions(input=encoder.input, feed=FeedOptions(batch_size=8, dir=str(data)))
    batches = eval_batches(options, tokenizer=encoder.tokenizer, split=split, batch_size=len(rows))
    video = encoder.encode_video_arrays(next(iter(batches))["video"])
    return encoder, rows, encoder.encode_text([row["captions"][0] for row in rows]), video


def test_each_runs_on_its_own_schedule_and_all_at_the_end(run):
    found = {line["step"]: sorted({key.split("/")[0] for key in line if "/" in key}) for line in lines(run[0], "eval")}
    assert found == {2: ["colours"], 3: ["part"], 4: ["colours"], 5: ["colours", "part", "val"]}
    assert {"val/t2v_R@1", "val/v2t_MdR", "val/twins", "colours/top1", "colours/top5"} <= set(lines(run[0], "eval")[-1])


def test_the_figures_are_those_of_the_saved_model(run, tiny_data):
    """Against a few lines of NumPy on what the encoder's own functions give."""
    last = lines(run[0], "eval")[-1]
    encoder, rows, text, video = encoded(run[0], tiny_data, "test")
    part = chosen_clips([row["clip_id"] for row in rows], subset=SUBSET)
    assert len(part) == SUBSET
    scores = text[part] @ video[part].T
    ranks = 1 + (scores > np.diag(scores)[:, None]).sum(axis=1)
    assert last["part/t2v_R@1"] == pytest.approx(100 * (ranks == 1).mean())
    assert last["part/t2v_MnR"] == pytest.approx(ranks.mean())
    weights = np.exp(100 * scores) / np.exp(100 * scores).sum(axis=0)
    again = scores * weights
    better = 1 + (again > np.diag(again)[:, None]).sum(axis=1)
    assert last["part/dsl:scale=100/t2v_MnR"] == pytest.approx(better.mean())
    records = Records(tiny_data)
    names = sorted({label for split in records.splits for row in records.rows(split) for label in row["labels"]})
    cosines = video @ encoder.encode_text([f"a video of {name}." for name in names]).T
    right = [names.index(row["labels"][0]) for row in rows]
    assert last["colours/top1"] == pytest.approx(100 * (cosines.argmax(axis=1) == right).mean())


def test_the_best_checkpoint_is_that_of_any_evaluation(run, config):
    workdir, result = run
    scores = {line["step"]: line["colours/top1"] for line in lines(workdir, "eval") if "colours/top1" in line}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert result.best["metric"] == "colours/top1" and result.best["step"] == best
    assert best in steps_in(workdir / "checkpoints")


def test_a_resumed_run_goes_on_and_may_take_up_an_evaluation(run, config, tmp_path):
    workdir = shutil.copytree(run[0], tmp_path / "run")
    more = config.copy_and_resolve_references()
    with more.unlocked():
        more.train.steps = 6
        more.evaluations.val.every = 3
        more.evaluations.whole = {"protocol": "retrieval", "split": "test", "every": 6}
    result = pretrain(more, workdir=workdir)
    evals = lines(workdir, "eval")
    assert [line["step"] for line in evals] == [2, 3, 4, 5, 6]
    assert {"val/t2v_R@1", "whole/t2v_R@1", "part/t2v_R@1", "colours/top1"} <= set(evals[-1])
    assert result.best["value"] == max(line["colours/top1"] for line in evals if "colours/top1" in line)
    with more.unlocked():
        more.evaluations.part.subset = 6  # the same name would stand for other clips
    with pytest.raises(UserError, match=r"evaluations\.part\.subset: 5 -> 6"):
        pretrain(more, workdir=workdir)


@pytest.fixture(scope="module")
def opened(tiny_data):
    """Opens one evaluation of the tiny data set, given its fields."""
    data = DataOptions.of({"dir": str(tiny_data), "batch_size": 8, "num_frames": 4, "eval_video": "center_crop(48)"})
    records = Records(tiny_data)

    def make(**fields):
        [(name, options)] = read_options({"mine": {"protocol": "retrieval"} | fields}).items()
        return open_evaluation(name, options, data=data, records=records)

    return make


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"protocol": "retreival"}, r"config\.evaluations\.mine\.protocol: 'retreival'; did you mean 'retrieval'"),
        ({"protocol": "benchmark:msvdd"}, r"mine\.protocol: 'benchmark:msvdd'; did you mean 'benchmark:msvd'"),
        ({"protocol": "zero_shot:k400"}, r"protocol: 'zero_shot:k400'"),
        ({"evry": 5}, r"field of config\.evaluations\.mine 'evry'; did you mean 'every'"),
        ({"captions": "frist"}, r"config\.evaluations\.mine: .*'frist'; did you mean 'first'"),
        ({"templates": "plain"}, r"unknown field of config\.evaluations\.mine 'templates'"),
        ({"subset": -1}, r"config\.evaluations\.mine: subset must be at least 0, got -1"),
        ({"split": "vall"}, r"config\.evaluations\.mine: unknown split .*'vall'; did you mean 'val'"),
        ({"data": "nowhere"}, r"config\.evaluations\.mine: data folder 'nowhere' does not exist"),
        ({"protocol": "zero_shot", "templates": "plian"}, r"mine: .*'plian'; did you mean 'plain'.*flags stand for"),
        ({"protocol": "zero_shot", "rule": "mean"}, r"config\.evaluations\.mine: unknown value of --rule 'mean'"),
        ({"protocol": "benchmark:msvd"}, r"config\.evaluations\.mine: --benchmark msvd needs data of 'msvd'"),
        (
            {"protocol": "benchmark:ucf101-1", "captions": "all"},
            r"unknown field of config\.evaluations\.mine 'captions'",
        ),
    ],
)
def test_mistakes_are_named_before_the_first_step(opened, fields, message):
    with pytest.raises(UserError, match=message):
        opened(**fields)


@pytest.mark.parametrize(("name", "fields"), [("a/b", {"protocol": "retrieval"}), ("a", "retrieval")])
def test_names_and_sections_have_a_form(name, fields):
    with pytest.raises(UserError, match=rf"config\.evaluations\.{name}"):
        read_options({name: fields})


def test_a_run_ends_before_its_first_step(config, tmp_path):
    bad = config.copy_and_resolve_references()
    with bad.unlocked():
        bad.train.best_metric = "colours/top_1"
    with pytest.raises(UserError, match=r"best_metric\) 'colours/top_1'; did you mean 'colours/top1'"):
        pretrain(bad, workdir=tmp_path / "run")
    with bad.unlocked():
        bad.train.best_metric, bad.evaluations.part.clip_side = "", "video+audio"
    with pytest.raises(UserError, match=r"evaluations\.part\.clip_side: 'video\+audio'"):
        pretrain(bad, workdir=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def changed(folder, *, row=None, prepared=None):
    """Change the lines of clips.jsonl, without an index of them, and the content of prepare.json."""
    path = folder / "clips.jsonl"
    shutil.rmtree(folder / "index")
    rows = [json.loads(line) | (row or {}) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))
    about = json.loads((folder / "prepare.json").read_text())
    (folder / "prepare.json").write_text(json.dumps(about | (prepared or {})))
    return folder


def test_frames_that_do_not_fit_end_the_run_at_the_start(config, tmp_path, other_data):
    bad = config.copy_and_resolve_references()
    folder = changed(shutil.copytree(other_data, tmp_path / "small"), row={"height": 20, "width": 20})
    with bad.unlocked():
        bad.evaluations.colours.data = str(folder)
    with pytest.raises(UserError, match=r"config\.evaluations\.colours: .*20 x 20"):
        pretrain(bad, workdir=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_benchmark_brings_its_protocol_and_says_what_differs(opened, tmp_path, tiny_data):
    about = {"benchmark": {"name": "msvd", "options": {}}}
    folder = changed(shutil.copytree(tiny_data, tmp_path / "msvd"), prepared=about)
    with pytest.raises(UserError, match=r"coverage 1\.19 %"):
        opened(protocol="benchmark:msvd", data=str(folder))
    found = opened(protocol="benchmark:msvd", data=str(folder), allow_missing=True, subset=4)
    assert (found.options.split, found.options.windows, len(found.only)) == ("test", 1, 4)
    assert any("differs from msvd: 4 frames per clip" in line for line in found.warnings)
    assert any("4 of 8 clips are measured" in line for line in found.warnings)


def test_a_benchmark_of_classification_brings_templates_and_names(opened, tmp_path, other_data, monkeypatch):
    entry = dataclasses.replace(CLASS_BENCHMARKS["ucf101-1"], split="test", videos=8, classes=2, classes_sha256=None)
    monkeypatch.setitem(CLASS_BENCHMARKS, "ucf101-1", entry)
    about = {"benchmark": {"name": "ucf101", "options": dict(entry.options)}}
    folder = changed(shutil.copytree(other_data, tmp_path / "ucf"), prepared=about)
    found = opened(protocol="benchmark:ucf101-1", data=str(folder), allow_missing=True, subset=5)
    assert found.measure.plan.templates.name == entry.templates == "clip_ucf101"
    assert (found.options.split, len(found.only)) == ("test", 5)
    assert set(found.measure.results) >= {"top1", "mean_class_accuracy"}
    assert any("differs from ucf101-1: " in line and "5 of 8 clips" in line for line in found.warnings)


def test_records_unlike_those_of_the_training_are_pointed_out(tiny_data, tmp_path):
    data = DataOptions.of({"dir": str(tiny_data), "batch_size": 8, "num_frames": 4})
    own = data.input.as_prepared({"fps": 12.0, "short_side": 52})
    data = DataOptions(input=own, feed=data.feed)
    [options] = read_options({"mine": {"protocol": "retrieval"}}).values()
    found = open_evaluation("mine", options, data=data, records=Records(tiny_data))
    assert [line for line in found.warnings if "config.evaluations.mine: these records hold 6 frames/s" in line]


def test_a_smaller_subset_is_part_of_a_larger_one():
    ids = [f"clip{number}" for number in range(50)]
    chosen = [set(chosen_clips(ids, subset=size).tolist()) for size in (5, 20, 0)]
    assert chosen[0] < chosen[1] < chosen[2] == set(range(50))
    mixed = chosen_clips(ids[::-1], subset=5)  # the choice is by id, not by place
    assert {ids[::-1][place] for place in mixed} == {ids[place] for place in chosen[0]}


@pytest.mark.parametrize("number", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_share_the_clips_and_the_counts_and_a_fault_of_one_ends_all(tiny_overrides, tmp_path, number):
    overrides = [*tiny_overrides, "evaluations.val.split=train", "evaluations.val.batch_size=4"]
    overrides += ["evaluations.val.captions=all"]
    flags = [f"--workdir={tmp_path}", f"--num_processes={number}", f"--coordinator=localhost:{free_port()}"]
    started = [Forked("worker_evaluate", [*flags, f"--process_id={i}", *overrides]) for i in range(number)]
    evaluation, model = opened_alone(overrides, tmp_path)
    alone, said = evaluation.run(model, 1), []
    for process in started:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        said.append([json.loads(line) for line in out.splitlines() if line.startswith("{")])
    shares = [lines[0] for lines in said]
    assert [len(one["read"]) for one in shares] == [24 // number] * number
    assert sorted(record for one in shares for record in one["read"]) == list(range(24))
    assert all(one["results"] == shares[0]["results"] for one in shares)
    assert shares[0]["results"] == pytest.approx(alone, abs=1e-3)
    counted = [one["counted"] for one in shares]  # pairs of texts and clips that went through the tiles
    assert sum(counted) == 48 * 24 and max(counted) <= 2 * min(counted)
    faults = [lines[1] for lines in said]
    assert "record 5 is damaged" in faults[-1]["error"]
    assert all("another process of the run could not read its share" in fault["error"] for fault in faults[:-1])
    assert max(fault["seconds"] for fault in faults) < 60

"""What a second start in a workdir compares with the first: the data by their content, wherever they lie."""

import json
import shutil

import pytest

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.identity import content_of, contents
from twinreel.data.options import DataOptions
from twinreel.pretrain.begin import tokenizer_content
from twinreel.pretrain.pretrain import main, pretrain


def command(overrides, *extra, workdir):
    flags = [f"--config.{item}" for item in [*overrides, "train.eval_every=0", "train.checkpoint_every=2"]]
    return ["--config", "demo", "--workdir", str(workdir), *flags, *extra]


def changed_copy(folder, *, to, **fields):
    """A copy of a prepared folder whose prepare.json says something else."""
    copy = shutil.copytree(folder, to)
    prepared = json.loads((copy / "prepare.json").read_text())
    for key, value in fields.items():
        (prepared["options"] if key in prepared["options"] else prepared)[key] = value
    (copy / "prepare.json").write_text(json.dumps(prepared))
    return copy


@pytest.fixture(scope="module")
def begun(tmp_path_factory, tiny_overrides):
    """A workdir with a run of two steps."""
    workdir = tmp_path_factory.mktemp("begun") / "run"
    assert main(command(tiny_overrides, "--config.train.steps=2", workdir=workdir)) == 0
    return workdir


def test_a_moved_data_set_is_the_same_and_one_step_can_be_gone_back_to(begun, tiny_data, tiny_overrides, tmp_path):
    moved = shutil.copytree(tiny_data, tmp_path / "mount" / "renamed")
    run = shutil.copytree(begun, tmp_path / "run")
    there = [f"--data={moved}"]
    assert main(command(tiny_overrides, *there, "--config.train.steps=4", workdir=run)) == 0
    assert json.loads((run / "config.json").read_text())["data"]["dir"] == str(moved)
    lower = ["--config.optimizer.lr=1e-5", "--overwrite_config", "--resume_step=2"]
    assert main(command(tiny_overrides, *there, *lower, "--config.train.steps=4", workdir=run)) == 0
    assert (run / "checkpoints" / "dropped-4").is_dir() and (run / "checkpoints" / "4").is_dir()


def test_data_that_have_changed_are_refused_with_what_changed(begun, tiny_data, tiny_overrides, tmp_path):
    counts = {split: {"clips": n, "rejected": 0} for split, n in (("train", 24), ("val", 8), ("test", 8))}
    other = changed_copy(tiny_data, to=tmp_path / "other", fps=3.0, source_sha256="0" * 64)
    config = load_config("demo", overrides=[*tiny_overrides, "train.eval_every=0", "train.checkpoint_every=2"])
    with config.unlocked():
        config.data.dir, config.train.steps = str(other), 4
    before = (begun / "metrics.jsonl").read_text()
    with pytest.raises(UserError) as caught:
        pretrain(config, workdir=begun)
    message = str(caught.value)
    assert "the data set of config.data.dir has changed since this run began (fps 6.0 -> 3.0, source_sha256 " in message
    assert "--overwrite_config" in message
    assert (begun / "metrics.jsonl").read_text() == before
    assert contents(DataOptions.of(config.data).feed)["data.dir"]["clips"] == {k: v["clips"] for k, v in counts.items()}


def test_every_source_of_a_mixture_is_compared(tiny_data, tmp_path):
    other = changed_copy(tiny_data, to=tmp_path / "other", fps=3.0)
    mixture = {"a": {"dir": str(tiny_data)}, "b": {"dir": str(other), "weight": 2.0}, "odd": 3}
    feed = DataOptions.of({"batch_size": 8, "mixture": mixture}).feed
    found = contents(feed)
    assert found.keys() == {"data.mixture.a.dir", "data.mixture.b.dir"}
    assert found["data.mixture.b.dir"]["fps"] == 3.0
    assert found["data.mixture.a.dir"] == content_of(tiny_data)
    shards = json.loads((tiny_data / "prepare.json").read_text())["shards"]
    shards[0]["sha256"] = "f" * 64
    damaged = changed_copy(tiny_data, to=tmp_path / "again", shards=shards)
    assert content_of(damaged)["records_sha256"] != found["data.mixture.a.dir"]["records_sha256"]
    with pytest.raises(UserError, match="does not exist"):
        content_of(tmp_path / "nowhere")


def test_a_tokenizer_is_compared_by_its_content(tmp_path, begun):
    assert tokenizer_content("train") == tokenizer_content("hf:a/b") == {}
    kept = json.loads((begun / "tokenizer.meta.json").read_text())
    assert kept["kind"] == "sentencepiece"
    assert tokenizer_content(str(tmp_path / "nowhere.model")) == {"data.tokenizer": None}
    from base64 import b64decode

    models = [tmp_path / "a.model", tmp_path / "b.model"]
    for path in models:
        path.write_bytes(b64decode(next(value for value in kept.values() if len(str(value)) > 1000)))
    one, other = (tokenizer_content(str(path)) for path in models)
    assert one == other and one["data.tokenizer"]["kind"] == "tokenizer"

"""`twinreel probe` on a small model and real records: features are those of the model, computed once, and reported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_devices import xla_flags
from flax import nnx
from public_models import source

from twinreel.__main__ import main as twinreel
from twinreel.base.errors import UserError
from twinreel.base.section import section
from twinreel.data.batches.records import Records
from twinreel.data.holdout import held_out
from twinreel.data.options import DataOptions, FeedOptions, InputSpec
from twinreel.data.text.tokenizer import load_tokenizer
from twinreel.encode.embed.encoder import Encoder
from twinreel.evaluate import probe
from twinreel.evaluate.embedding import frozen
from twinreel.evaluate.measures.neighbours import one_hot, weighted_knn
from twinreel.launch.local import free_port
from twinreel.zoo.build import build
from twinreel.zoo.bundle import write_bundle
from twinreel.zoo.spec import ModelOptions

TOKENIZER = load_tokenizer(Path(__file__).parents[1] / "golden" / "tokenizers" / "clip_fast")
MODEL = {
    "embed_dim": 6,
    "video": {"image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "temporal_depth": 1},
    "text": {"width": 8, "depth": 1, "heads": 2},
}


@pytest.fixture(scope="module")
def encoder():
    given = InputSpec(num_frames=4, eval_video="resize_short(16)|center_crop(16)", context_length=16)
    options = section(ModelOptions, MODEL, name="model")
    spec = options.spec(input=given, vocab_size=TOKENIZER.vocab_size).replace(tokenizer=TOKENIZER.to_meta())
    return Encoder(spec=spec, model=build(spec, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def bundle(encoder, tmp_path_factory):
    return encoder.save(tmp_path_factory.mktemp("model") / "bundle")


def run(bundle, data, out, *argv):
    assert probe.main([str(bundle), "--data", str(data), "--out", str(out), *argv]) == 0
    return json.loads((out / "probe.json").read_text())


def pictures(encoder, data, split, **feed):
    """The frames of all clips of a split."""
    from twinreel.data.batches.pipeline import eval_batches

    size = Records(data).splits[split]
    options = DataOptions(input=encoder.input, feed=FeedOptions(batch_size=1, dir=str(data), **feed))
    (batch,) = eval_batches(options, tokenizer=TOKENIZER, split=split, batch_size=size)
    return batch["video"]


def test_features_are_those_of_the_model_and_k_nn_votes_over_them(encoder, bundle, tiny_data, tmp_path, capsys):
    found = run(bundle, tiny_data, tmp_path, "--method", "knn", "--k", "3")
    with np.load(tmp_path / "features" / "test.embedding.npz") as saved:
        embedding = saved["features"]
    np.testing.assert_allclose(embedding, encoder.encode_video_arrays(pictures(encoder, tiny_data, "test")), atol=1e-5)
    records = Records(tiny_data)
    names = sorted({label for split in records.splits for row in records.rows(split) for label in row["labels"]})
    labels = {s: np.array([names.index(row["labels"][0]) for row in records.rows(s)]) for s in ("train", "test")}
    bank = encoder.encode_video_arrays(pictures(encoder, tiny_data, "train"))
    votes = weighted_knn(embedding, bank=bank, targets=one_hot(labels["train"], classes=len(names)), k=3)
    with np.load(tmp_path / "probe.npz") as saved:
        np.testing.assert_allclose(saved["scores"], votes, atol=1e-3)
        assert saved["labels"].tolist() == labels["test"].tolist() and saved["classes"].tolist() == names
    assert [row["name"] for row in found["per_class"]] == names
    protocol = found["protocol"]
    assert (protocol["task"], protocol["train_clips"], protocol["shots"]) == ("k-NN classification", 24, "all")
    assert protocol["features"] == "embedding" and protocol["weights_sha256"] and protocol["subset_id"]
    page = (tmp_path / "probe.html").read_text()
    assert "k-NN classification" in page and "Caron et al. 2021" in page and 'href="probe.json"' in page
    assert "trained on 24 clips, features embedding, k 3" in capsys.readouterr().out
    from twinreel.evaluate.evaluate import main as evaluate

    assert evaluate(["--zero_shot", "--scores", str(tmp_path / "probe.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == found["accuracy"]


def test_features_are_computed_once_and_again_for_other_windows(bundle, tiny_data, tmp_path, monkeypatch, capsys):
    first = run(bundle, tiny_data, tmp_path, "--features", "pooled")
    assert first["protocol"]["validated_on"] == "split 'val' (8 clips)" and first["probe"]["sweep"]
    assert first["coverage"]["found"] == 8
    compute = frozen._compute
    monkeypatch.setattr(frozen, "_compute", lambda *_, **__: pytest.fail("computed again"))
    again = run(bundle, tiny_data, tmp_path, "--features", "pooled", "--json")
    assert again == first
    capsys.readouterr()
    computed = []
    monkeypatch.setattr(frozen, "_compute", lambda *a, **k: computed.append(k["split"]) or compute(*a, **k))
    run(bundle, tiny_data, tmp_path, "--features", "pooled", "--windows", "2", "--method", "knn")
    assert sorted(computed) == ["test", "train"]
    assert "has features of other windows; they are computed again" in capsys.readouterr().out


def test_windows_are_averaged_or_joined(encoder, bundle, tiny_data, tmp_path):
    told = {"windows": 2, "progress": False}
    video, records = frozen.load_video(bundle), Records(tiny_data)
    views = pictures(encoder, tiny_data, "test", eval_clips=2)
    tower = encoder.model.video
    for kind, want in (
        ("embedding", encoder.encode_video_arrays(views)),
        ("pooled", np.mean([tower(views[:, v]) for v in range(2)], axis=0)),
        ("tokens", np.concatenate([tower.features(views[:, v]) for v in range(2)], axis=1)),
    ):
        options = frozen.FrozenOptions(kind=kind, **told)
        found = frozen.frozen_features(video, records=records, split="test", folder=tmp_path, options=options)
        np.testing.assert_allclose(found["features"], want, atol=1e-5)


def test_an_encoder_of_video_alone_is_probed_by_its_pooled_vectors(encoder, tiny_data, tmp_path):
    spec = encoder.spec.replace(towers={"video": encoder.spec.towers["video"]}, embed_dim=None, tokenizer={})
    params = {
        "/".join(map(str, path)): np.asarray(value)
        for path, value in nnx.to_flat_state(nnx.state(build(spec, rngs=nnx.Rngs(0))))
    }
    model = write_bundle(tmp_path / "alone", spec=spec, params=params)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="no joint space, so no embedding; give --features pooled"):
        run(model, tiny_data, out)
    found = run(model, tiny_data, out, "--features", "pooled", "--method", "knn")
    assert found["accuracy"]["n"] == 8


def test_an_attentive_probe_reads_the_vectors_of_frames(bundle, tiny_data, tmp_path):
    found = run(bundle, tiny_data, tmp_path, "--method", "attentive", "--epochs", "2", "--shots", "2", "--draws", "2")
    assert found["protocol"]["features"] == "tokens" and len(found["draws"]) == 2
    with np.load(tmp_path / "features" / "train.tokens.npz") as saved:
        assert saved["features"].shape == (24, 4, 8)
    page = (tmp_path / "probe.html").read_text()
    assert "Draws" in page and "loss, nats" in page and "Bardes et al. 2024" in page


@pytest.fixture
def changed(tiny_data, tmp_path):
    """Return a function that copies the data set with changed lines."""

    def copy(change):
        folder = shutil.copytree(tiny_data, tmp_path / "changed")
        lines = [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]
        for line in lines:
            change(line)
        (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return copy


def test_without_a_validation_split_clips_are_held_out_by_file(bundle, tiny_data, changed, tmp_path):
    """Two clips of each file in training, and one file of them in the test split, too."""

    def file(line):
        line["file"] = f"{line['split']}{line['index'] // 2}.mp4"
        line["labels"] = [f"class {line['index'] // 2 % 3}"]
        if line["split"] == "test" and line["index"] == 0:
            line["file"], line["labels"] = "train0.mp4", []

    data = changed(file)
    found = run(bundle, data, tmp_path / "out", "--val_split", "none", "--hold_out", "0.25")
    rows = list(Records(data).rows("train"))
    targets = one_hot(np.array([int(row["labels"][0][-1]) for row in rows]), classes=3)
    out = held_out(rows, targets=targets, share=0.25)
    assert found["protocol"]["validated_on"] == f"{out.sum()} clips held out of split 'train' by source file"
    files = np.array([row["file"] for row in rows])
    assert out.any() and not set(files[out]) & set(files[~out])
    told = found["protocol"]["warnings"]
    assert any("1 clips of split 'test' have no label" in line for line in told)
    assert not any("come from files" in line for line in told)  # the clip that shares a file is not measured


def test_clips_of_files_that_are_trained_on_are_counted(bundle, changed, tmp_path):
    data = changed(lambda line: line.update(file=f"{line['index']}.mp4"))
    found = run(bundle, data, tmp_path / "out", "--method", "knn")
    assert "8 of 8 test clips come from files of which other clips are trained on" in found["protocol"]["warnings"]


def test_clips_with_several_labels_are_measured_by_average_precision(bundle, changed, tmp_path, capsys):
    data = changed(lambda line: line.update(labels=["x"] if line["index"] % 3 else ["x", "y"]))
    found = run(bundle, data, tmp_path / "out", "--method", "knn", "--k", "5", "--shots", "3", "--draws", "2")
    assert found["multilabel"]["labels_per_clip"] > 1 and set(found["over_draws"]) == {"mAP", "hit@1"}
    assert "mAP over 2 draws" in capsys.readouterr().out
    found = run(bundle, data, tmp_path / "one", "--method", "knn", "--labels", "all", "--k", "5")
    assert "AP, %" in (tmp_path / "one" / "probe.html").read_text()


def test_what_cannot_be_probed_is_refused_before_the_model_is_read(changed, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "load_video", lambda path: pytest.fail("the model was read"))
    one = changed(lambda line: line.update(labels=["x"]))
    for data, argv, message in (
        (one, [], "training clips of two classes or more, and the 24 there have x"),
        (tiny_data, ["--split", "tests"], r"unknown split \(--split\) 'tests'; did you mean 'test'"),
        (tiny_data, ["--train_split", "test"], "both 'test'; measure on other clips"),
        (tiny_data, ["--k", "3"], "--k belongs to --method knn, and this is --method linear"),
        (tiny_data, ["--method", "attentive", "--features", "pooled"], "an attentive probe reads the vectors"),
        (tiny_data, ["--features", "pool"], "did you mean 'pooled'"),
        (tiny_data, ["--hold_out", "1"], "wanted a share above 0 and below 1"),
        (tiny_data, ["--method", "attentive", "--epochs", "0"], "--epochs of the attentive probe is 0"),
    ):
        with pytest.raises(UserError, match=message):
            run("none", data, tmp_path / "out", *argv)


def test_the_verb_is_in_the_table(capsys):
    with pytest.raises(SystemExit):
        twinreel(["probe", "--help"])
    assert "weighted by exp(cosine / temperature)" in capsys.readouterr().out


def test_processes_share_the_features_and_the_first_one_trains(bundle, tiny_data, tmp_path):
    alone = run(bundle, tiny_data, tmp_path / "alone", "--method", "knn", "--k", "3", "--batch_size", "8")
    address = f"localhost:{free_port()}"
    command = [sys.executable, "-W", "error", "-m", "twinreel", "probe", str(bundle), "--data", str(tiny_data)]
    command += ["--out", str(tmp_path / "two"), "--method", "knn", "--k", "3", "--batch_size", "8"]
    command += ["--coordinator", address, "--num_processes", "2"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(2)}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, "--process_id", str(i)], env=environment, **pipe) for i in range(2)]
    for process in both:
        _, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
    together = json.loads((tmp_path / "two" / "probe.json").read_text())
    assert together["per_class"] == alone["per_class"] and together["accuracy"] == alone["accuracy"]
    saved = [np.load(tmp_path / name / "features" / "test.embedding.npz")["features"] for name in ("alone", "two")]
    np.testing.assert_allclose(*saved, atol=1e-5)


@pytest.mark.parametrize("features", ["embedding", "pooled"])
def test_public_weights_are_probed(features, tiny_data, tmp_path):
    """A folder of CLIP's own files, of image weights: its image tower sees the frames one by one."""
    folder = source("clip/quick", tmp_path / "clip")
    found = run(folder, tiny_data, tmp_path / features, "--method", "knn", "--k", "3", "--features", features)
    assert found["protocol"]["checkpoint"] == str(folder) and found["protocol"]["weights_sha256"]
    with np.load(tmp_path / features / "features" / f"test.{features}.npz") as saved:
        assert len(saved["features"]) == 8 and np.isfinite(saved["features"]).all()

"""`twinreel evaluate --benchmark NAME` and `--list`: protocols as data, and what happens to data that differ."""

import csv
import dataclasses
import doctest
import hashlib
import io
import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from twinreel.base.errors import UserError
from twinreel.data.options import InputSpec
from twinreel.data.prepare.benchmark import prepare_benchmark
from twinreel.data.prepare.prepare import prepare
from twinreel.data.sources.registry import get_source
from twinreel.engine.sharding.mesh import make_mesh
from twinreel.evaluate import evaluate
from twinreel.evaluate.protocols import benchmarks, marks
from twinreel.evaluate.protocols.benchmark_data import check_prepared, deviations, settle
from twinreel.evaluate.protocols.benchmark_table import entries
from twinreel.evaluate.protocols.benchmarks import BENCHMARKS, get_benchmark
from twinreel.evaluate.protocols.choice_benchmarks import CHOICE_BENCHMARKS
from twinreel.evaluate.protocols.class_benchmarks import CLASS_BENCHMARKS
from twinreel.evaluate.protocols.retrieval import coverage_of

NAMES = ["msrvtt-1ka", "msrvtt-full", "msvd", "didemo", "activitynet", "lsmdc", "vatex", "youcook2"]
ONE = BENCHMARKS["msrvtt-1ka"]
IDS = ("video7", "video8", "video9")


class Encoder:
    """Embeds a clip by its brightness and a text by its letters."""

    def __init__(self):
        self.tokenizer, self.mesh, self.source = self, make_mesh(devices=jax.devices()[:1]), "fake"
        self.input = InputSpec(num_frames=4, context_length=8, eval_video="resize_short(16)|center_crop(16)")
        self.meta, self.clip_side = {}, "video"
        self.spec = SimpleNamespace(towers={"video": {"family": "vivit"}}, features={})
        self.model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))

    def encode(self, strings, *, context_length):
        ids = np.zeros((len(strings), context_length), np.int32)
        for row, text in zip(ids, strings, strict=True):
            row[: len(text)] = [ord(c) for c in text[:context_length]]
        return ids, ids > 0, sum(len(text) > context_length for text in strings)

    def lengths(self, strings):
        return np.array(list(map(len, strings)), np.int64)

    def embed_local(self, rows, *, side):
        rest = {key: value for key, value in rows.items() if key not in ("video", "text", "text_mask")}
        if side == "text":
            found = np.stack([np.sin(np.arange(1, 13) * total) for total in rows["text"].sum(axis=1)])
        else:
            found = rows["video"].astype(np.float32).mean(axis=(2, 3)).reshape(len(rows["video"]), -1)
        return {"embedding": found.astype(np.float32), **rest}


def write_annotations(folder):
    folder.mkdir()
    sentences = [
        {"video_id": name, "caption": f"caption {name} {k}", "sen_id": k} for name in ("video1", *IDS) for k in range(2)
    ]
    (folder / "MSRVTT_data.json").write_text(json.dumps({"videos": [], "sentences": sentences}))
    (folder / "MSRVTT_JSFUSION_test.csv").write_text(
        "key,vid_key,video_id,sentence\nr0,m9,video9,a fish\nr1,m8,video8,a cat\nr2,m7,video7,a dog\n"
    )
    (folder / "test_list_miech.txt").write_text("\n".join(IDS) + "\n")
    (folder / "train_list_miech.txt").write_text("video1\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory, media):
    """Folders of three test clips of MSR-VTT: `whole` and `part` (without video8) as 1k-A, and `other` as 1k-B."""
    folder = tmp_path_factory.mktemp("msrvtt")
    write_annotations(folder / "annotations")
    made = {}
    for name, videos, options in (
        ("whole", IDS, {}),
        ("part", ("video7", "video9"), {}),
        ("other", IDS, {"variant": "1kb"}),
    ):
        for number, video in enumerate(videos):
            media.write(folder / name / f"{video}.mp4", media.grey(*range(20 + 5 * number, 180, 20)))
        made[name] = folder / f"{name}_set"
        prepare_benchmark(
            "msrvtt",
            annotations=folder / "annotations",
            videos=folder / name,
            out=made[name],
            options=options,
            splits=["test"],
            fps=4,
            short_side=24,
            workers=1,
            console=Console(file=io.StringIO()),
        )
    return SimpleNamespace(**made)


@pytest.fixture
def small(monkeypatch):
    """Put entries into the table: `small(videos=3)` is 1k-A of three clips with that change."""

    def put(**change):
        ids = hashlib.sha256("".join(f"{name}\n" for name in IDS).encode()).hexdigest()
        entry = dataclasses.replace(ONE, **{"videos": 3, "texts": 3, "ids_sha256": ids} | change)
        monkeypatch.setitem(benchmarks.BENCHMARKS, entry.name, entry)
        return entry

    return put


def run(data, out, *flags, monkeypatch):
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda path: Encoder())
    argv = ["no_run", "--data", str(data), "--out", str(out), "--benchmark", "msrvtt-1ka", *flags]
    assert evaluate.main(argv) == 0
    return json.loads((out / "retrieval.json").read_text())


# ---- the table


def test_entries_have_the_names_that_users_type_and_data_that_prepare_can_make():
    assert list(BENCHMARKS) == NAMES
    for entry in entries().values():
        options = get_source(entry.source).settings(dict(entry.options))
        assert all(options[name] == value for name, value in entry.options.items())
        json.dumps(entry.to_dict(), allow_nan=False)
        assert entry.citation and getattr(entry, "captions", "all") in ("all", "first")


@pytest.mark.parametrize("name", ["msrvtt-1ka", "msvd", "didemo", "activitynet", "youcook2"])
def test_counts_and_ids_are_those_of_the_owners_files(name, real_dir):
    entry = BENCHMARKS[name]
    source = get_source(entry.source)
    read = source.read(real_dir / "annotations" / entry.source, **source.settings(dict(entry.options)))
    clips = [clip for clip in read.clips if clip.split == entry.split]
    assert (len(clips), sum(len(clip.captions) for clip in clips)) == (entry.videos, entry.texts)
    lines = b"".join(sorted(f"{clip.clip_id}\n".encode() for clip in clips))
    assert hashlib.sha256(lines).hexdigest() == entry.ids_sha256


def test_ids_of_1ka_without_any_code_of_ours(real_dir):
    with (real_dir / "annotations" / "msrvtt" / "MSRVTT_JSFUSION_test.csv").open() as file:
        ids = sorted(row["video_id"] for row in csv.DictReader(file))
    assert hashlib.sha256("".join(f"{name}\n" for name in ids).encode()).hexdigest() == ONE.ids_sha256


def test_list_prints_all_or_one_with_the_command_for_its_data(capsys):
    assert evaluate.main(["--list"]) == 0
    table = capsys.readouterr().out
    for entry in (*CLASS_BENCHMARKS.values(), *CHOICE_BENCHMARKS.values()):
        assert any(line.split()[:1] == [entry.name] for line in table.splitlines())
    for entry in BENCHMARKS.values():
        row = next(line for line in table.splitlines() if line.split()[:1] == [entry.name])
        assert f"{entry.videos:,}" in row and f"{entry.texts:,}" in row and entry.split in row
        assert (entry.ids_sha256 or "-")[:12] in row
    assert "…" not in table
    assert evaluate.main(["--list", "activitynet"]) == 0
    one = capsys.readouterr().out
    assert "twinreel prepare activitynet --text paragraph --splits val_1 --annotations DIR" in one
    assert "PE 32" in one and "4,917" in one
    assert evaluate.main(["--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == [*NAMES, *CLASS_BENCHMARKS, *CHOICE_BENCHMARKS]
    assert listed["vatex"]["texts"] == 15000
    assert evaluate.main(["--benchmark", "vatex", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == listed["vatex"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--list", "vatx"], "unknown benchmark .*'vatx'; did you mean 'vatex'"),
        (["--list", "vatex", "--split", "test"], "got '--split'"),
        (["--list", "vatex", "msvd"], "got 'msvd'"),
        (["m", "--data", "d", "--out", "o", "--benchmark", "msrvt-1ka"], "did you mean 'msrvtt-1ka'"),
        (["--embeddings", "e.npz", "--benchmark", "msvd"], "--benchmark msvd goes with MODEL --data DIR"),
    ],
)
def test_wrong_names_and_flags_are_refused(argv, message):
    with pytest.raises(UserError, match=message):
        evaluate.main(argv)


# ---- settings


def test_a_benchmark_sets_split_and_captions():
    assert settle("", split="", captions="") == {"split": "test", "captions": "all"}
    assert settle("", split="val", captions="first") == {"split": "val", "captions": "first"}
    assert settle("activitynet", split="", captions="") == {"split": "val_1", "captions": "all"}
    assert settle("youcook2", split="val", captions="all") == {"split": "val", "captions": "all"}
    assert settle("lsmdc", split="", captions="first")["captions"] == "first"  # one caption each: the same texts


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("msvd", {"captions": "first"}),
        ("vatex", {"captions": "first"}),
        ("activitynet", {"split": "test"}),
        ("msvd", {"split": "val"}),
        ("lsmdc", {"captions": "frist"}),
    ],
)
def test_settings_that_contradict_the_protocol_are_refused(name, given):
    flag, value = next(iter(given.items()))
    with pytest.raises(UserError, match=rf"--{flag} {value} contradicts --benchmark {name}"):
        settle(name, **{"split": "", "captions": ""} | given)


def test_contradictions_are_refused_before_the_model_is_read(data, tmp_path):
    argv = ["no_run", "--data", str(data.part), "--out", str(tmp_path), "--benchmark", "msrvtt-1ka"]
    with pytest.raises(UserError, match="--split train contradicts"):
        evaluate.main([*argv, "--split", "train"])
    with pytest.raises(UserError, match=r"0.20 %: 998 of 1,000 clips .*2 texts .*other clip ids.*video8.*--allow_miss"):
        evaluate.main(argv)


# ---- other data


def test_data_of_another_test_set_is_refused(data, tmp_path):
    argv = ["no_run", "--out", str(tmp_path), "--allow_missing"]
    for folder, name, message in (
        (data.other, "msrvtt-1ka", r"for 'msrvtt variant=1kb train=9k', .*needs 'msrvtt variant=1ka'; prepare it with"),
        (data.whole, "msrvtt-full", r"needs 'msrvtt variant=full'.*`twinreel prepare msrvtt --variant full --splits"),
        (
            data.whole,
            "vatex",
            r"for 'msrvtt variant=1ka train=9k', --benchmark vatex needs 'vatex variant=hgr text=en'",
        ),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main([*argv, "--data", str(folder), "--benchmark", name])


def test_data_of_no_benchmark_or_without_the_split_is_refused():
    with pytest.raises(UserError, match=r"was prepared from 'mine.csv', not by a benchmark's name; .*prepare msvd"):
        check_prepared(get_benchmark("msvd"), prepared={"source": "mine.csv", "counts": {}}, folder="d")
    prepared = {"benchmark": {"name": "msvd", "options": {}}, "counts": {"train": {}, "val": {}}}
    with pytest.raises(UserError, match=r"d has no split 'test', .*\(it has: train, val\); .*--splits test"):
        check_prepared(get_benchmark("msvd"), prepared=prepared, folder="d")


# ---- coverage and marks


def test_whole_data_is_measured_without_a_flag_or_a_mark(data, tmp_path, small, monkeypatch, capsys):
    entry = small(frames={"fake": 4}, text_length={})
    results = run(data.whole, tmp_path, monkeypatch=monkeypatch)
    assert "marked" not in results and "*" not in capsys.readouterr().out
    coverage, protocol = results["coverage"], results["protocol"]
    assert (coverage["fraction"], coverage["ids_match"], coverage["texts_found"]) == (1, True, 3)
    assert protocol["deviations"] == []
    assert protocol["benchmark_protocol"] == json.loads(json.dumps(entry.to_dict()))
    assert protocol["split"] == "test" and protocol["captions"] == "all"


def test_missing_clips_mark_every_figure(data, tmp_path, small, monkeypatch, capsys):
    small()
    flags = ("--allow_missing", "--as", "clip4clip", "--rerank", "dsl")
    results = run(data.part, tmp_path / "out", *flags, monkeypatch=monkeypatch)
    assert results["marked"] is True
    assert results["coverage"]["fraction"] == pytest.approx(2 / 3)
    assert results["coverage"]["ids_match"] is True  # a subset of the list
    assert results["text_to_video"]["marked"] is results["video_to_text"]["optimistic"]["marked"] is True
    assert "1 of 3 clips are missing" in results["protocol"]["deviations"]
    printed = capsys.readouterr().out
    figures = re.findall(r"(?<![\w@.])\d+\.\d+(?! %: )\S?", printed.split("subset id")[0])
    assert figures and all(figure.endswith("*") for figure in figures)
    assert "* not comparable with figures of the whole test set: 1 of 3 clips are missing; 2 texts" in printed
    page = (tmp_path / "out" / "index.html").read_text()
    assert re.search(r"<td[^>]*>\d+\.\d\d\*</td>", page) and not re.search(r"<td[^>]*>\d+\.\d\d</td>", page)
    assert "not comparable with figures of the whole test set" in page

    # The saved embeddings keep protocol and marks.
    assert evaluate.main(["--embeddings", str(tmp_path / "out" / "embeddings.npz"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["marked"], again["protocol"]) == (True, results["protocol"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids_sha256": "0" * 64}, "coverage 100.00 %: the annotation files list other clip ids"),
        ({"texts": 4}, "3 texts are there, the list has 4"),
        ({"videos": 2, "texts": 3}, "3 clips are there, the list has 2"),
        ({"videos": 4, "ids_sha256": None}, "coverage 75.00 %: 1 of 4 clips are missing"),
    ],
)
def test_other_clips_or_texts_than_the_list_need_the_flag(data, tmp_path, small, monkeypatch, change, message):
    small(**change)
    with pytest.raises(UserError, match=message):
        run(data.whole, tmp_path, monkeypatch=monkeypatch)
    results = run(data.whole, tmp_path, "--allow_missing", monkeypatch=monkeypatch)
    assert results["marked"] is True
    assert any(message.partition("%: ")[2] in one or message in one for one in results["protocol"]["deviations"])


def test_marks_leave_whole_results_alone_and_miss_no_block():
    assert doctest.testmod(marks).failed == 0
    whole = {"coverage": coverage_of(rows=None, rejects=[]), "text_to_video": {"R@1": 1.0}}
    assert marks.marked(whole) is whole
    part = {"coverage": {"missing": 1, "expected": 2, "found": 1}, "protocol": {"frames": 4}}
    part |= {"a": {"b": {"c": [1.0, 2.0]}}, "hubness": 3.0}
    made = marks.marked(part)
    assert made["a"] == {"b": {"c": [1.0, 2.0], "marked": True}}
    assert made["protocol"] == {"frames": 4} and made["marked"] is True


# ---- deviations


def test_records_of_fewer_frames_are_a_warning_and_a_deviation(data, tmp_path, small, monkeypatch, capsys):
    small(min_fps=8.0, frames={"a": 64})
    results = run(data.whole, tmp_path, "--windows", "2", monkeypatch=monkeypatch)
    protocol, printed = results["protocol"], capsys.readouterr().err
    wanted = [
        "the records hold 4 frames/s, the protocol of msrvtt-1ka draws from at least 8",
        "3 of 3 clips have fewer",
    ]
    for sentence in wanted:
        for lines in (protocol["warnings"], protocol["deviations"]):
            assert any(line.startswith(sentence) for line in lines)
        assert f"warning: {sentence}" in printed
    assert "windows is 2, the protocol has 1" in protocol["deviations"]
    assert "4 frames per clip, papers use 64 (a)" in protocol["deviations"]
    assert "marked" not in results  # a deviation is named; the test set is whole


def test_each_setting_that_differs_is_named():
    protocol = {"clip_side": "video+audio", "window_seconds": 2.5, "texts_truncated": 7, "context_length": 16}
    found, prepared = deviations(ONE, protocol=protocol | {"frames": 8}, rows=[], coverage={})
    assert found == [
        "clip_side is 'video+audio', the protocol has 'video'",
        "window_seconds is 2.5, the protocol takes the whole clip",
        "7 texts are cut at 16 tokens, papers keep 32 (CLIP4Clip (words))",
    ]
    assert prepared == []
    assert deviations(ONE, protocol={"context_length": 77, "texts_truncated": 1}, rows=[], coverage={}) == ([], [])


# ---- identity and ranks


def test_the_report_names_weights_machine_and_the_rank_of_each_query(data, tmp_path, small, monkeypatch):
    small()
    protocol = run(data.whole, tmp_path, monkeypatch=monkeypatch)["protocol"]
    digest, model = hashlib.sha256(), Encoder().model
    for name in ("bias", "kernel"):
        array = np.asarray(getattr(model, name)[...])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    assert protocol["weights_sha256"] == digest.hexdigest()
    assert protocol["environment"]["jax"] == jax.__version__
    assert protocol["environment"]["devices"] == jax.device_count()
    ranks, saved = np.load(tmp_path / "ranks.npz"), np.load(tmp_path / "embeddings.npz")
    text, video = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (saved["text"], saved["video"]))
    scores = text.astype(np.float64) @ video.T.astype(np.float64)
    own = scores[np.arange(3), saved["video_of_text"]]
    assert ranks["text_to_video_expected"].tolist() == (1 + (scores > own[:, None]).sum(axis=1)).tolist()
    assert sorted(ranks["clip_ids"].tolist()) == list(IDS)
    for name in ("text_to_video", "video_to_text"):
        low, middle, high = (ranks[f"{name}_{case}"] for case in ("optimistic", "expected", "pessimistic"))
        assert (low <= middle).all() and (middle <= high).all() and len(low) == 3


def test_data_without_a_benchmark_has_an_empty_entry(tmp_path, media, monkeypatch):
    media.write(tmp_path / "v" / "a.mp4", media.grey(*range(20, 180, 20)))
    rows = [{"clip_id": "a", "path": "v/a.mp4", "captions": ["x"], "split": "test"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(tmp_path / "m.jsonl", out=tmp_path / "set", fps=4, short_side=24, workers=1)
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda path: Encoder())
    argv = ["no_run", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "out")]
    assert evaluate.main(argv) == 0
    protocol = json.loads((tmp_path / "out" / "retrieval.json").read_text())["protocol"]
    assert (protocol["benchmark_protocol"], protocol["deviations"]) == ({}, [])
    with pytest.raises(UserError, match="not by a benchmark's name"):
        evaluate.main([*argv, "--benchmark", "msvd", "--allow_missing"])

"""The verbs with a real (tiny) model: index, search by itself, by sound and by text; mistakes on the command line."""

import csv
import json

import pytest
from small_encoder import small_encoder

from twinreel.__main__ import main


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_encoder().save(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def index(films, bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verbs") / "library"
    argv = ["index", str(films), "--out", str(folder), "--model", str(bundle), "--window", "4", "--fps", "4"]
    assert main([*argv, "--workers", "2"]) == 0
    return folder


def run(*argv, capsys):
    status = main([str(one) for one in argv])
    streams = capsys.readouterr()
    return status, streams.out, streams.err


def test_index_again(index, capsys):
    status, out, _ = run("index", "--out", index, "--json", capsys=capsys)
    found = json.loads(out)
    assert status == 0 and (found["model"], found["unchanged"], found["added"]) == ("tiny", 8, 0)
    assert found["moments"] == 30 and found["search"].keys() == {"video", "audio", "transcript"}


def test_a_film_finds_itself(index, films, capsys):
    for name in ("short/grey190.mp4", "long/ramp.mp4", "picture.png"):
        status, out, _ = run("search", index, "--like", films / name, "--json", capsys=capsys)
        best = json.loads(out)["hits"][0]
        assert status == 0 and best["path"] == str(films / name) and best["score"] == pytest.approx(1, abs=1e-4)


def test_sound_and_transcript(index, films, capsys):
    _, out, _ = run("search", index, "--sound", films / "short" / "grey150.mp4", "--json", capsys=capsys)
    assert json.loads(out)["hits"][0]["path"].endswith("grey150.mp4")
    _, out, _ = run("search", index, "grey 200", "--in", "transcript", "--json", capsys=capsys)
    best = json.loads(out)["hits"][0]
    assert best["spans"][0]["start_s"] == 38.0 and best["score"] == pytest.approx(1, abs=1e-4)


def test_table_files_and_export(index, films, tmp_path, capsys):
    csv_file, cuts = tmp_path / "hits.csv", tmp_path / "cuts"
    argv = [
        "search",
        index,
        "something -dark",
        "--like",
        f"{films / 'long' / 'ramp.mp4'}^2",
        "--folder",
        films / "long",
    ]
    status, out, err = run(*argv, "--limit", "2", "--out", csv_file, "--export", cuts, "--subtitles", capsys=capsys)
    assert status == 0 and "ramp.mp4" in out.replace("\n", "") and "wrote" in err and "moments, " in err
    rows = list(csv.DictReader(csv_file.read_text().splitlines()))
    assert {row["path"] for row in rows} == {str(films / "long" / "ramp.mp4")}
    assert len(list(cuts.glob("*.mp4"))) == len(rows)


def test_rerank_and_fold(index, tmp_path, capsys):
    (tmp_path / "bank.txt").write_text("one\n\ntwo things\n")
    status, out, _ = run("search", index, "a", "--rerank", tmp_path / "bank.txt", "--fold", "--json", capsys=capsys)
    assert status == 0 and json.loads(out)["unit"] == "dual softmax"


def test_another_model_where_it_lies_now(index, bundle, tmp_path, capsys):
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in bundle.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert run("search", index, "a", "--model", moved, "--json", capsys=capsys)[0] == 0
    assert run("search", index, "a", "--model", "tiny", "--json", capsys=capsys)[0] == 0
    small_encoder(embed_dim=10).save(tmp_path / "other")
    status, _, err = run("search", index, "a", "--model", tmp_path / "other", capsys=capsys)
    assert (
        status == 2
        and "width 10) did not make the embeddings of 'tiny'" in err.replace("\n", " ")
        and "adds this one" in err
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["search", "INDEX"], "nothing to look for; give TEXT"),
        (["search", "INDEX", "--minus", "a"], "names only what to avoid"),
        (["search", "INDEX", "a", "--subtitles"], "--subtitles belongs to --export"),
        (["search", "INDEX", "a", "--out", "x.pdf"], "hits are written as"),
        (["search", "INDEX", "a", "--label", "dog"], "unknown label 'dog'"),
        (["search", "INDEX", "a", "--after", "soon"], "is no date"),
        (["search", "INDEX", "a", "--rerank", "absent.txt"], "absent.txt cannot be read"),
        (["search", "INDEX", "--like", "absent.mp4"], "absent.mp4 cannot be looked for: file does not exist"),
        (["search", "nowhere", "a"], "there is no index at 'nowhere'; `twinreel index FOLDER --out nowhere"),
        (["index", "somewhere", "--out", "INDEX", "--window", "9"], "made with other settings (--window 4 -> 9)"),
        (["index", "--out", "new"], "a new index needs --model"),
        (["index", "--out", "INDEX", "--batch_size", "0"], "--batch_size is 0"),
        (["index", "--out", "INDEX", "--window", "9", "--overlap", "9"], "an overlap of at most nine tenths"),
        (["index", "--out", "INDEX", "--drop_model", "tinny"], "did you mean 'tiny'"),
    ],
)
def test_mistakes(index, argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*[str(index) if one == "INDEX" else one for one in argv], capsys=capsys)
    assert status == 2 and message in err

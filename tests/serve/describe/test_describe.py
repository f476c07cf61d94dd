"""Descriptions from evidence: what is gathered, what is sent to a stand-in endpoint, and what is kept."""

import json
import re

import numpy as np
import pytest
from brightness_model import brightness_model
from chat_server import chat_server

from twinreel import __main__ as cli
from twinreel.data.clip import Sentence
from twinreel.serve.describe import gather
from twinreel.serve.describe.bank import Bank
from twinreel.serve.describe.compose import messages
from twinreel.serve.describe.evidence import Evidence

CAPTIONS = "grey 30\ngrey 110\n\ngrey 230\ngrey 110\n"


@pytest.fixture
def described(films, library, tmp_path, monkeypatch, capsys):
    """Runs the verb on films with the model of the index; returns status, output and errors."""
    assert gather.check_model  # modules that take `open_model` along are loaded before it is replaced
    monkeypatch.setattr("twinreel.serve.index.models.open_model", lambda source, **_: brightness_model())
    monkeypatch.delenv("TWINREEL_ENDPOINT", raising=False)
    monkeypatch.setenv("TWINREEL_API_KEY", "sk-secret")
    (tmp_path / "captions.txt").write_text(CAPTIONS)
    (tmp_path / "classes.txt").write_text("dark\tgrey 40\nbright\tgrey 200\n")

    def run(*argv, files=("short/grey110.mp4",)):
        paths = [str(films / file) for file in files]
        status = cli.main(["describe", "model", *paths, *map(str, argv)])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return run


def test_the_evidence_of_a_clip_is_sent_and_kept(described, films, library, tmp_path):
    out = tmp_path / "out"
    flags = ["--captions", tmp_path / "captions.txt", "--classes", tmp_path / "classes.txt", "--index", library]
    with chat_server(lambda body: "A grey film.") as server:
        flags += ["--endpoint", server.url, "--out", out, "--top_k", "2"]
        status, printed, _ = described(*flags, files=("short/grey110.mp4", "long/ramp.mp4"))
        assert status == 0 and printed.count("A grey film.") == 2
        described(*flags, files=("short/grey110.mp4", "long/ramp.mp4"))
        assert len(server.requests) == 2  # nothing is asked twice
    first, second = map(json.loads, (out / "descriptions.jsonl").read_text().splitlines())
    assert first["text"] == "A grey film." and first["endpoint"] == server.url and first["llm"] == "stand-in"
    assert [one["text"] for one in first["evidence"]["captions"]] == ["grey 110", "grey 30"]
    assert first["evidence"]["labels"][0]["text"] == "grey 40"
    found = first["evidence"]["neighbours"]
    assert len(found) == 2 and not any(one["path"].endswith("grey110.mp4") for one in found)  # not the clip itself
    assert [one["text"] for one in second["evidence"]["speech"]] == ["half way there", "grey 200"]
    assert second["evidence"]["speech_from"] == "subtitles" and "speech" not in first["evidence"]
    sent = server.requests[1]["messages"][1]["content"]
    assert "[20.0 s] half way there" in sent and "Describe the clip" in sent
    for one in second["evidence"]["captions"]:
        assert f"- {one['score']:.3f} {one['text']}" in sent
    everything = "".join(path.read_text() for path in out.iterdir())
    assert "sk-secret" not in everything and server.keys == ["Bearer sk-secret"] * 2


def test_cosines_are_those_of_the_nearest_moment():
    rng = np.random.default_rng(0)
    texts, moments = rng.normal(size=(5, 8)), rng.normal(size=(3, 8))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    moments /= np.linalg.norm(moments, axis=1, keepdims=True)
    names = tuple("abcde")
    best = {name: max(float(sum(a * b for a, b in zip(text, moment, strict=True))) for moment in moments)
            for name, text in zip(names, texts, strict=True)}  # fmt: skip
    found = Bank(texts=names, vectors=texts, origin="").nearest(moments, count=3)
    wanted = sorted(best, key=best.get, reverse=True)[:3]
    assert [one.text for one in found] == wanted
    assert [one.score for one in found] == pytest.approx([best[name] for name in wanted], abs=1e-4)


def test_a_question_is_answered_and_a_page_shows_the_evidence(described, tmp_path):
    out = tmp_path / "out"
    with chat_server(lambda body: "It is <b>grey</b>.") as server:
        flags = ["--captions", tmp_path / "captions.txt", "--question", "Which colour?", "--out", out, "--json"]
        status, printed, _ = described(*flags, "--endpoint", server.url)
    [line] = map(json.loads, printed.splitlines())
    assert status == 0 and line["question"] == "Which colour?" and line["text"] == "It is <b>grey</b>."
    assert "Question: Which colour?" in server.requests[0]["messages"][1]["content"]
    page = (out / "index.html").read_text()
    assert "It is &lt;b&gt;grey&lt;/b&gt;." in page and "Which colour?" in page and "grey 110" in page
    assert not re.search(r'(src|href)="https?:', page)


def test_evidence_can_be_shown_without_an_endpoint(described, tmp_path):
    status, printed, _ = described("--captions", tmp_path / "captions.txt", "--evidence_only")
    assert status == 0 and re.search(r"- 0\.9\d\d grey 110", printed)


def test_long_speech_is_cut_and_says_so():
    speech = tuple(Sentence(start_s=i, end_s=i + 1, text="word " * 20) for i in range(200))
    sent = messages(Evidence(path="a", speech=speech, speech_from="subtitles"))[1]["content"]
    assert len(sent) < 7_500 and re.search(r"remaining \d+ of 200 sentences are left out", sent)
    assert "Nothing is said in it." in messages(Evidence(path="a", speech_from="x"))[1]["content"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no endpoint; give --endpoint URL of an OpenAI-compatible server"),
        (["--evidence_only"], "no evidence; give --captions FILE|DIR:SPLIT, --classes FILE or --index INDEX"),
        (
            ["--evidence_only", "--captions", "nowhere"],
            "--captions 'nowhere' does not exist; give a text file",
        ),
        (["--evidence_only", "--captions", "empty.txt"], "--captions empty.txt has no caption"),
        (["--evidence_only", "--classes", "empty.txt"], "has no class"),
        (["--evidence_only", "--captions", "captions.txt", "--top_k", "0"], "--top_k is 0, wanted 1 or more"),
        (
            ["--evidence_only", "--captions", "captions.txt", "--recogniser", "x"],
            "unknown recogniser (--recogniser) 'x'",
        ),
        (
            ["--captions", "captions.txt", "--endpoint", "http://127.0.0.1:9/v1"],
            "cannot be reached (Connection refused)",
        ),
    ],
)
def test_bad_commands(described, flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    status, _, errors = described(*flags)
    assert status == 2 and message in errors


def test_bad_files(described, tmp_path):
    flags = ["--evidence_only", "--captions", tmp_path / "captions.txt"]
    status, _, errors = described(*flags, files=("nowhere.mp4",))
    assert status == 2 and "does not exist; give media files" in errors
    status, _, errors = described(*flags, files=("notes.txt",))
    assert status == 2 and "cannot be looked for" in errors


def test_an_index_of_another_model_is_refused(described, library, monkeypatch):
    monkeypatch.setattr("twinreel.serve.index.models.open_model", lambda source, **_: brightness_model(gap=0.7))
    status, _, errors = described("--evidence_only", "--index", library)
    assert status == 2 and "did not make the embeddings of 'brightness'" in errors

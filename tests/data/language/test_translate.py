"""Translation of manifests by a stand-in endpoint: what is sent, what is kept, and what a bad endpoint costs."""

import json
import threading

import pytest
from chat_server import chat_server

from twinreel import __main__ as cli
from twinreel.base.chat import Chat, ChatError, ChatOptions
from twinreel.base.errors import UserError
from twinreel.data.language.translate import TranslateOptions, translate
from twinreel.data.manifest import read_manifest

LINES = [
    {
        "clip_id": "a",
        "path": "films/a.mp4",
        "captions": ["a dog runs", "a red ball"],
        "sentences": [{"start_s": 0.5, "end_s": 2.0, "text": "go on", "words": [[0.5, 1.0, "go"], [1.0, 2.0, "on"]]}],
        "transcript": "go on",
        "meta": {"year": 1999},
    },
    {"clip_id": "b", "path": "films/b.mp4", "captions": ["a dog runs", " "], "transcript": "told elsewhere"},
]


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def numbered(body):
    return json.loads(body["messages"][-1]["content"])


def shout(body):
    """Translate into capital letters, as a model that likes to chat would."""
    found = {number: text.upper() for number, text in numbered(body).items()}
    return f"Here you are:\n```json\n{json.dumps(found)}\n```"


def run(manifest, server, *, out="out/t.jsonl", retries=1, **options):
    chat = Chat(ChatOptions(endpoint=server.url, model="m", retries=retries, timeout=5), sleep=lambda seconds: None)
    given = TranslateOptions(**{"to": "Capitals", "parallel": 1, **options})
    return translate(manifest, out=manifest.parent / out, by=chat, options=given)


def test_texts_are_translated_once_and_the_originals_are_kept(manifest):
    with chat_server(shout) as server:
        report = run(manifest, server)
    a, b = read_manifest(manifest.parent / "out" / "t.jsonl")
    assert a.captions == ("A DOG RUNS", "A RED BALL") and b.captions == ("A DOG RUNS", " ")
    assert a.transcript == "GO ON" and b.transcript == "TOLD ELSEWHERE"
    [sentence] = a.sentences
    assert (sentence.start_s, sentence.end_s, sentence.text, sentence.words) == (0.5, 2.0, "GO ON", ())
    assert a.path == "../films/a.mp4"
    kept = a.meta["original"]
    assert kept["captions"] == LINES[0]["captions"] and kept["sentences"] == LINES[0]["sentences"]
    assert a.meta["year"] == 1999 and a.meta["language"] == "Capitals" and kept["transcript"] == "go on"
    [request] = server.requests
    assert sorted(numbered(request).values()) == ["a dog runs", "a red ball", "go on", "told elsewhere"]
    assert "into Capitals" in request["messages"][0]["content"] and (report["texts"], report["failed"]) == (4, 0)


def test_translations_stand_behind_the_originals_with_add(manifest):
    with chat_server(shout) as server:
        run(manifest, server, add=True, fields=("captions",))
    a, b = read_manifest(manifest.parent / "out" / "t.jsonl")
    assert a.captions == ("a dog runs", "a red ball", "A DOG RUNS", "A RED BALL")
    assert a.transcript == "go on" and a.sentences[0].words and "transcript" not in a.meta["original"]
    assert b.captions == ("a dog runs", " ", "A DOG RUNS")


def test_a_killed_run_asks_only_for_what_is_missing(manifest):
    answers = iter([shout, shout, lambda body: (401, {}, b"{}")])
    with chat_server(lambda body: next(answers)(body)) as server, pytest.raises(ChatError, match="refuses access"):
        run(manifest, server, batch=1)
    assert not (manifest.parent / "out" / "t.jsonl").exists()
    with chat_server(shout) as server:
        report = run(manifest, server, batch=1)
        assert len(server.requests) == 2 and report["reused"] == 2
        run(manifest, server)
        assert len(server.requests) == 2
        run(manifest, server, to="German")  # another language is another text
        assert len(server.requests) == 3


def test_an_answer_that_lacks_texts_is_asked_for_in_halves(manifest):
    def small(body):
        """Forget the last text of more than two, and refuse the context of more than three."""
        texts = numbered(body)
        if len(texts) > 3:
            return 400, {}, b'{"error": {"message": "context"}}'
        return json.dumps(
            {number: text.upper() for number, text in list(texts.items())[: 2 if len(texts) > 2 else None]}
        )

    with chat_server(small) as server:
        report = run(manifest, server)
    assert report["failed"] == 0 and [len(numbered(body)) for body in server.requests] == [4, 2, 2]
    assert read_manifest(manifest.parent / "out" / "t.jsonl")[1].transcript == "TOLD ELSEWHERE"


@pytest.mark.parametrize(
    "junk", ["I cannot help with that.", '{"1": ""}', '{"1": 3}', "[1]", '{"1": "\\ud800"}', "{" * 9]
)
def test_texts_without_a_translation_are_kept_and_capped(manifest, junk):
    def picky(body):
        return junk if "a red ball" in numbered(body).values() else shout(body)

    with chat_server(picky) as server:
        message = r"1 texts have no translation, such as 'a red ball': it answered .*What was translated is kept"
        with pytest.raises(UserError, match=message):
            run(manifest, server)
        report = run(manifest, server, max_bad_fraction=0.25)
    [a, _] = read_manifest(manifest.parent / "out" / "t.jsonl")
    assert report["failed"] == 1 and a.captions == ("A DOG RUNS", "a red ball")


def test_a_text_that_no_context_holds_is_kept_and_counted(manifest):
    def short_texts_only(body):
        if any(len(text) > 12 for text in numbered(body).values()):
            return 400, {}, b'{"error": {"message": "the request exceeds the context"}}'
        return shout(body)

    with chat_server(short_texts_only) as server:
        assert run(manifest, server, max_bad_fraction=0.5)["failed"] == 1
        with pytest.raises(UserError, match=r"1 texts have no translation, such as 'told elsewhere': .*the context"):
            run(manifest, server, max_bad_fraction=0.0)
    a, b = read_manifest(manifest.parent / "out" / "t.jsonl")
    assert a.captions == ("A DOG RUNS", "A RED BALL") and b.transcript == "told elsewhere"


def test_requests_run_at_a_time(manifest):
    both = threading.Barrier(2)

    def wait(body):
        both.wait(timeout=10)
        return shout(body)

    with chat_server(wait) as server:
        run(manifest, server, batch=2, parallel=2)
    assert len(server.requests) == 2


def test_a_translation_of_a_translation_keeps_the_first_texts(manifest):
    with chat_server(shout) as server:
        run(manifest, server, out="one.jsonl")
    with chat_server(lambda body: json.dumps({n: text.lower() + "!" for n, text in numbered(body).items()})) as server:
        run(manifest.parent / "one.jsonl", server, out="two.jsonl")
    [a, _] = read_manifest(manifest.parent / "two.jsonl")
    assert a.captions[0] == "a dog runs!" and a.meta["original"]["captions"] == LINES[0]["captions"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no endpoint; give --endpoint URL of an OpenAI-compatible server"),
        (["--endpoint", "nowhere"], "--endpoint is '", ),
        (["--endpoint", "http://127.0.0.1:9/v1", "--fields", "caption"], "unknown field (--fields) 'caption'; did you"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--fields", ","], "--fields is [], wanted at least one of captions"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--batch", "0"], "--batch is 0, wanted 1 or more"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--to", " "], "--to is empty; name a language"),
        (["--endpoint", "http://127.0.0.1:9/v1"], "cannot be reached (Connection refused); start the server"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--out", "m.jsonl"], "is the manifest to translate"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--out", "t.csv"], "which ends in .jsonl"),
    ],
)  # fmt: skip
def test_bad_commands(manifest, argv, message, monkeypatch, capsys):
    monkeypatch.chdir(manifest.parent)
    monkeypatch.delenv("TWINREEL_ENDPOINT", raising=False)
    base = ["translate", "m.jsonl", "--out", "t.jsonl", "--to", "German"]
    assert cli.main([*base, *argv]) == 2
    assert message in capsys.readouterr().err


def test_a_manifest_without_texts_in_the_fields(manifest):
    manifest.write_text('{"clip_id": "a", "path": "a.mp4", "captions": ["x"]}\n')
    with (
        chat_server(shout) as server,
        pytest.raises(UserError, match=r"has no text in transcript; choose other --fields"),
    ):
        run(manifest, server, fields=("transcript",))
    assert not server.requests

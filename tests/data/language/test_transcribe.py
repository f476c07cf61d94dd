"""From a source to a manifest with what is said: a stand-in that hears beeps, and pocketsphinx on real speech."""

import json
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import av
import numpy as np
import pytest

from twinreel import __main__ as cli
from twinreel.base.errors import UserError
from twinreel.data.clip import Word
from twinreel.data.language import transcribe as module
from twinreel.data.language.recogniser import RecogniserOptions, open_recogniser, sentence_of
from twinreel.data.language.transcribe import TranscribeOptions, transcribe
from twinreel.data.language.whisper import Whisper
from twinreel.data.manifest import read_manifest
from twinreel.data.prepare.record import sentences

SPEECH = Path(__file__).parents[2] / "golden" / "speech" / "goforward.flac"
ONE = TranscribeOptions(workers=1)


def beeps(media, *, at=(0.5, 1.5), seconds=2.5):
    """Silence with a tenth of a second of sound at each of these seconds."""
    sound = np.zeros(round(16_000 * seconds), np.int16)
    for start in at:
        sound[round(16_000 * start) :][:1600] = media.tone(0.1)
    return sound


class Beeps:
    """A recogniser by hand: a sentence whose words are the beeps, found where the sound is loud."""

    heard = 0

    def listen(self, samples):
        type(self).heard += 1
        steps = samples[: len(samples) // 800 * 800].reshape(-1, 800)  # of 50 ms
        loud = np.abs(steps.astype(np.int64)).max(axis=1) > 8000
        starts = [i for i in range(len(loud)) if loud[i] and not (i and loud[i - 1])]
        words = [Word(start_s=0.05 * i, end_s=0.05 * i + 0.1, text=f"beep{n}") for n, i in enumerate(starts)]
        return [sentence_of(words)] if words else []


@pytest.fixture
def stand_in(monkeypatch):
    Beeps.heard = 0
    monkeypatch.setattr(module, "open_recogniser", lambda options: Beeps())
    return RecogniserOptions()


@pytest.fixture
def films(media, tmp_path):
    """Three films: beeps, silence, and beeps with subtitles."""
    folder = tmp_path / "films"
    frames = media.grey(*range(20, 220, 10))  # 2.5 s
    for name, at in (("a", (0.5, 1.5)), ("quiet", ()), ("told", (1.0,))):
        media.write(folder / f"{name}.mp4", frames, sound=beeps(media, at=at))
    (folder / "told.en.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nas it is told\n")
    (folder / "told.txt").write_text("a grey film\n")
    return folder


def test_what_is_said_stands_in_the_manifest_with_its_times(films, stand_in, tmp_path):
    out = tmp_path / "out" / "said.jsonl"
    options = TranscribeOptions(workers=1, as_captions=True)
    report = transcribe(films, out=out, recogniser=stand_in, options=options)
    clips = {Path(clip.path).stem: clip for clip in read_manifest(out)}
    assert (out.parent / clips["a"].path).resolve() == films / "a.mp4"
    assert clips["a"].transcript == "beep0 beep1" and clips["a"].captions == ("beep0 beep1",)
    starts = [word.start_s for word in clips["a"].sentences[0].words]
    assert starts == pytest.approx([0.5, 1.5], abs=0.051)
    assert clips["quiet"].sentences == () and clips["quiet"].captions == ()
    assert clips["told"].transcript == "as it is told" and clips["told"].sentences[0].start_s == 1.0
    assert clips["told"].captions == ("a grey film",)
    assert (report["kept"], report["recognised"], report["silent"], report["words"]) == (1, 2, 1, 2)
    assert report["seconds"] == pytest.approx(2.5, abs=0.1)  # silence is not listened to


def test_the_same_command_again_recognises_only_what_is_new(films, media, stand_in, tmp_path):
    out = tmp_path / "said.jsonl"
    transcribe(films, out=out, recogniser=stand_in, options=ONE)
    journal = out.with_name("said.jsonl.transcripts")
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-5])  # killed while it wrote the second line
    media.write(films / "b.mp4", media.grey(*range(20, 60, 10)), sound=beeps(media, at=(0.2,), seconds=0.5))
    report = transcribe(films, out=out, recogniser=stand_in, options=ONE)
    assert (report["reused"], report["recognised"]) == (1, 2) and Beeps.heard == 2
    report = transcribe(films, out=out, recogniser=stand_in, options=ONE)
    assert (report["reused"], report["recognised"]) == (3, 0) and Beeps.heard == 2
    said = {Path(clip.path).stem: clip.transcript for clip in read_manifest(out)}
    assert said == {"a": "beep0 beep1", "b": "beep0", "quiet": "", "told": "as it is told"}
    report = transcribe(films, out=out, recogniser=stand_in, options=TranscribeOptions(workers=1, redo=True))
    assert report["kept"] == 0 and Beeps.heard == 3


def test_a_process_that_dies_is_named_and_what_was_heard_is_kept(films, stand_in, tmp_path, monkeypatch):
    hear, out = Beeps.listen, tmp_path / "said.jsonl"

    def dies(self, samples):
        if self.heard:
            raise BrokenProcessPool("a child process terminated abruptly")
        return hear(self, samples)

    monkeypatch.setattr(Beeps, "listen", dies)
    options = TranscribeOptions(workers=1, redo=True)
    with pytest.raises(UserError, match="fewer --workers and run the same command again"):
        transcribe(films, out=out, recogniser=stand_in, options=options)
    monkeypatch.setattr(Beeps, "listen", hear)
    assert transcribe(films, out=out, recogniser=stand_in, options=options)["reused"] >= 1


def test_a_window_hears_its_own_part_and_a_record_cuts_between_words(films, stand_in, tmp_path):
    line = {"clip_id": "w", "path": "films/a.mp4", "captions": ["x"], "start_s": 1.25, "end_s": 2.25, "split": "train"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    transcribe(tmp_path / "m.jsonl", out=tmp_path / "said.jsonl", recogniser=stand_in, options=ONE)
    [clip] = read_manifest(tmp_path / "said.jsonl")
    [word] = clip.sentences[0].words  # of the file's own time
    assert word.text == "beep0" and word.start_s == pytest.approx(1.5, abs=0.051) and clip.path == "films/a.mp4"
    [row] = sentences(clip, duration_s=1.0)  # in a record: from the clip's start
    assert row["words"][0][0] == row["start_s"] == pytest.approx(0.25, abs=0.051)


def test_a_file_that_cannot_be_heard_is_counted_and_capped(films, stand_in, tmp_path):
    (films / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match=r"1 of 3 clips cannot be heard \(.*: 1\).*--max_bad_fraction \(0.05\)"):
        transcribe(films, out=tmp_path / "said.jsonl", recogniser=stand_in, options=ONE)
    options = TranscribeOptions(workers=1, max_bad_fraction=0.5)
    report = transcribe(films, out=tmp_path / "said.jsonl", recogniser=stand_in, options=options)
    assert sum(report["unreadable"].values()) == 1 and report["clips"] == 4


def test_sound_that_begins_after_the_pictures_has_their_time(media, tmp_path, stand_in):
    frames = media.grey(*range(20, 220, 10))
    media.write(tmp_path / "late" / "a.mp4", frames, sound=beeps(media, at=(0.5,), seconds=1.5), sound_from_s=1.0)
    transcribe(tmp_path / "late", out=tmp_path / "said.jsonl", recogniser=stand_in, options=ONE)
    [clip] = read_manifest(tmp_path / "said.jsonl")
    assert clip.sentences[0].start_s == pytest.approx(1.5, abs=0.051)


# --- the recognisers ---


def test_pocketsphinx_hears_the_words_at_their_times(tmp_path):
    """The golden clip says "go forward ten meters"; here it begins at 2 s of a sound of 5.5 s, in a folder of one."""
    pytest.importorskip("pocketsphinx", reason="pip install 'twinreel[pocketsphinx]'")
    with av.open(str(SPEECH)) as file:
        speech = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    sound = np.concatenate([np.zeros(32_000, np.int16), speech, np.zeros(12_000, np.int16)])
    [sentence] = open_recogniser(RecogniserOptions()).listen(sound)
    assert sentence.text == "go forward ten meters"
    assert [word.text for word in sentence.words] == sentence.text.split()
    # By ear and by its envelope, "go" begins at 0.48 s of the clip and "meters" ends at 2.1 s.
    assert sentence.start_s == pytest.approx(2.48, abs=0.15) and sentence.end_s == pytest.approx(4.1, abs=0.15)
    gaps = [after.start_s - word.end_s for word, after in zip(sentence.words, sentence.words[1:], strict=False)]
    assert gaps == pytest.approx([0, 0, 0], abs=0.021)


class WhisperModel:
    """What faster-whisper gives for two segments, the second one beyond the end of the sound."""

    def transcribe(self, sound, *, language, word_timestamps, condition_on_previous_text, vad_filter):
        from types import SimpleNamespace as Made

        assert sound.dtype == np.float32 and np.abs(sound).max() <= 1 and language is None and word_timestamps
        times = [(-0.01, 0.4, " Hello"), (0.4, 0.4, " you."), (1.0, 2.0, " ")]
        words = [Made(start=start, end=end, word=word) for start, end, word in times]
        late = [Made(start=5.0, end=6.0, word=" late")]
        return iter([Made(text=" Hello you.", words=words), Made(text=" late", words=late)]), None


def test_segments_of_whisper_become_sentences_with_words():
    [sentence] = Whisper(WhisperModel(), language="").listen(np.full(32_000, 9_000, np.int16))
    assert sentence.to_json() == {
        "start_s": 0.0, "end_s": 0.401, "text": "Hello you.", "words": [[0.0, 0.4, "Hello"], [0.4, 0.401, "you."]],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "pocketsphynx"}, r"unknown recogniser \(--recogniser\) 'pocketsphynx'; did you mean 'pocketsphinx'"),
        ({"language": "English"}, r"--language is 'English', wanted a code such as en or de"),
        ({"threads": -1}, r"--threads is -1"),
    ],
)
def test_bad_recognisers(options, message):
    with pytest.raises(UserError, match=message):
        RecogniserOptions(**options)


def test_a_recogniser_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(RecogniserOptions, "version", lambda self: "")
    with pytest.raises(UserError, match=r"needs the package faster-whisper: pip install 'twinreel\[whisper\]'"):
        open_recogniser(RecogniserOptions(name="faster_whisper"))
    monkeypatch.setattr(RecogniserOptions, "version", lambda self: "1")
    with pytest.raises(UserError, match=r"--model is missing; give a folder with Whisper in the form of CTranslate2"):
        open_recogniser(RecogniserOptions(name="faster_whisper"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"lacks model.bin, tokenizer.json"):
        open_recogniser(RecogniserOptions(name="faster_whisper", model=str(tmp_path)))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["SRC", "--out", "a.csv"], "--out a.csv: wanted the name of a manifest, which ends in .jsonl"),
        (["SRC", "--out", "SRC"], "is the source; give the new manifest another name"),
        (["nowhere", "--out", "a.jsonl"], "source 'nowhere' does not exist"),
        (["SRC", "--out", "a.jsonl", "--workers", "-1"], "--workers is -1"),
    ],
)
def test_bad_commands(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.jsonl").write_text('{"clip_id": "a", "path": "a.mp4", "captions": ["x"]}\n')
    assert cli.main(["transcribe", *["m.jsonl" if word == "SRC" else word for word in argv]]) == 2
    assert message in capsys.readouterr().err


def test_a_broken_journal_is_not_overwritten(stand_in, films, tmp_path):
    (tmp_path / "said.jsonl.transcripts").write_text("my notes\n")
    with pytest.raises(UserError, match=r"line 1 is no line of a journal; move the file away"):
        transcribe(films, out=tmp_path / "said.jsonl", recogniser=stand_in, options=ONE)
    assert (tmp_path / "said.jsonl.transcripts").read_text() == "my notes\n"


def test_windows_cut_a_transcript_between_words():
    """The drawn window: words count whose middle lies in it (`data.said.within`, used by records and batches)."""
    from twinreel.data.said import within

    line = sentence_of([Word(start_s=i, end_s=i + 0.8, text=str(i)) for i in range(5)]).to_json()
    for start, end in ((0.0, 5.0), (1.5, 3.5), (0.41, 1.39), (4.5, 9.0), (5.0, 9.0)):
        wanted = [str(i) for i in range(5) if start <= i + 0.4 < end]
        part = within(line, start_s=start, end_s=end)
        assert (part["text"].split() if part else []) == wanted

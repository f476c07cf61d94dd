"""`twinreel inspect`: its figures against plain loops, the page, the check of all records."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from html_page import Page
from PIL import Image

from twinreel.__main__ import main as twinreel
from twinreel.base.errors import UserError
from twinreel.data.inspect import measure
from twinreel.data.inspect.contact_sheet import draw
from twinreel.data.inspect.inspect import _duplicates, bars, inspect
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.prepare.prepare import prepare

CAPTIONS = [
    ("a dog runs over the wide green meadow", "the dog is running after a red ball"),
    ("ein Hund läuft über die große grüne Wiese hinter dem Haus",),
    ("собака бежит по зелёному лугу за мячом",),
    ("狗",),
    ("<b>bold</b> & \"quoted\" 'words' everywhere in the caption",),
    ("word " * 90,),
]


@pytest.fixture(scope="module")
def folder(media, tmp_path_factory):
    """Twelve good clips in two splits, two bad ones; clip 11 is a copy of clip 0 in another split."""
    root = tmp_path_factory.mktemp("inspected")
    clips = []
    for number in range(12):
        rng = np.random.default_rng(number)
        ground = cv2.resize(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8), (48, 32), interpolation=cv2.INTER_CUBIC)
        frames = [np.roll(ground, 3 * step, axis=1) for step in range(8 + number)]
        path = root / "v" / f"{number}.mp4"
        if number == 11:
            shutil.copy(root / "v" / "0.mp4", path)
        else:
            media.write(path, frames, fps=8, sound=media.tone(1.0) if number % 3 == 0 else None)
        clips.append(
            Clip(
                clip_id=f"c{number}",
                path=f"v/{number}.mp4",
                captions=CAPTIONS[number % len(CAPTIONS)],
                split="test" if number in (3, 7, 11) else "train",
                labels=("run",) if number % 2 else (),
                transcript="hello" if number == 4 else "",
            )
        )
    (root / "v" / "bad.mp4").write_text("no video " * 50)
    clips += [
        Clip(clip_id=name, path=f"v/{name}.mp4", captions=("x",), split="train") for name in ("bad", "there <is> none")
    ]
    write_manifest(root / "m.jsonl", clips=clips)
    prepare(root / "m.jsonl", out=root / "set", fps=4, short_side=32, workers=1, shard_clips=5, max_bad_fraction=0.5)
    return root / "set"


@pytest.fixture(scope="module")
def inspected(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("page")
    return out, inspect(folder, out=out, vocab_size=400, context_length=40, sheet=7, verify=True)


def rows_of(folder, split):
    lines = (folder / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


def test_figures_are_those_of_plain_loops(folder, inspected):
    figures = inspected[1]
    assert list(figures["splits"]) == ["train", "test"]
    for split, found in figures["splits"].items():
        clips = frames = captions = words = sound = transcripts = 0
        longest, seconds = 0.0, 0.0
        for row in rows_of(folder, split):
            clips += 1
            frames += row["num_frames"]
            seconds += row["duration_s"]
            longest = max(longest, row["duration_s"])
            sound += row["has_audio"]
            transcripts += row["transcript"] != ""
            for caption in row["captions"]:
                captions += 1
                words += len(caption.split())
        assert (found["clips"], found["frames"], found["captions"]) == (clips, frames, captions)
        assert (found["with_sound"], found["with_transcript"]) == (sound, transcripts)
        assert found["hours"] == pytest.approx(seconds / 3600, abs=1e-4)
        assert found["duration_s"]["max"] == pytest.approx(longest)
        assert found["caption_words"]["mean"] == pytest.approx(words / captions, abs=1e-4)
        for key in ("duration_s", "frames_per_clip"):
            assert sum(found[key]["counts"]) == clips
        for key in ("caption_words", "caption_characters", "tokens"):
            assert sum(found[key]["counts"]) == captions
        assert sum(found["source_sizes"].values()) == clips
        assert found["source_codecs"] == {"h264": clips}
        assert found["source_fps"] == {"8": clips}
        assert found["stored_sizes"] == {"48x32": clips}
    assert figures["splits"]["train"]["labels"] == {"run": 3}
    assert [figures["splits"][split]["rejected"] for split in ("train", "test")] == [2, 0]


def test_rejects_and_duplicates(inspected):
    figures = inspected[1]
    assert {reason: entry["clips"] for reason, entry in figures["rejects"].items()} == {
        "cannot be opened": 1,
        "file does not exist": 1,
    }
    assert figures["rejects"]["file does not exist"]["examples"] == ["v/there <is> none.mp4"]
    found = figures["duplicates"]
    assert (found["exact"], found["leaks"], found["across_splits"]) == (1, {"test": 1}, 1)
    assert found["first"][0]["leak"]


def test_truncated_captions_are_counted(folder, inspected, tmp_path):
    from twinreel.data.text.tokenizer import SentencePieceTokenizer

    figures = inspected[1]
    train = [caption for row in rows_of(folder, "train") for caption in row["captions"]]
    tokenizer = SentencePieceTokenizer.train(train, vocab_size=400)
    _, _, cut = tokenizer.encode(train, context_length=40)
    assert 0 < cut < len(train)
    assert figures["splits"]["train"]["truncated"] == cut
    assert figures["splits"]["train"]["truncated_share"] == pytest.approx(cut / len(train), abs=1e-6)
    (tmp_path / "t.model").write_bytes(tokenizer.model)
    again = inspect(folder, tokenizer=tmp_path / "t.model", context_length=40)
    assert again["splits"]["train"]["tokens"] == figures["splits"]["train"]["tokens"]


def test_languages_and_scripts(inspected):
    pytest.importorskip("py3langid")
    language, _ = measure.identifier()
    assert [language(" ".join(CAPTIONS[n])) for n in (0, 1, 2, 3)] == ["en", "de", "ru", "too short to tell"]
    assert language("12 %") == "no letters"
    assert [measure.script(CAPTIONS[n][0]) for n in range(4)] == ["latin", "latin", "cyrillic", "cjk"]
    assert inspected[1]["splits"]["train"]["languages"]["de"] == 1
    assert inspected[1]["splits"]["train"]["scripts"]["cyrillic"] == 2


def test_without_a_language_identifier(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "py3langid", None)
    language, how = measure.identifier()
    assert language("a dog runs over the meadow") == "unknown"
    assert "twinreel[langid]" in how


@pytest.mark.parametrize("kind", ["whole", "real"])
def test_spread_loses_nothing(kind):
    rng = np.random.default_rng(0)
    values = rng.integers(1, 200, 500) if kind == "whole" else rng.gamma(2, 3, 500)
    found = measure.spread(values)
    assert sum(found["counts"]) == 500
    assert len(found["edges"]) == len(found["counts"]) + 1 <= 26
    slow = [
        sum(low <= value < high for value in values)
        for low, high in zip(found["edges"], found["edges"][1:], strict=False)
    ]
    if kind == "whole":
        assert found["counts"] == slow
    assert (found["min"], found["max"]) == pytest.approx((min(values), max(values)), abs=1e-4)
    assert found["median"] == pytest.approx(sorted(values)[249:251][0] / 2 + sorted(values)[249:251][1] / 2, abs=1e-3)


def test_bars():
    assert bars([0, 1, 100, 50]) == " ▁█▄"
    assert bars([]) == bars([0])[:0]


# --- the page ---


def test_page_has_all_sections_and_needs_no_network(inspected):
    out, figures = inspected
    page = (out / "index.html").read_text(encoding="utf-8")
    titles = "Overview|Remarks|Contact sheet|Distributions|Stored sizes|Sizes of the source|Frame rates of the source"
    for title in f"{titles}|Languages (clips)|Scripts (clips)|Labels|Rejected clips|Duplicates|Preparation".split("|"):
        assert f"<h2>{title}</h2>" in page
    parsed = Page(page)
    assert parsed.tags.count("figure") == 7 + 7  # charts and clips of the sheet
    assert page.count("<svg") == 7
    assert not re.search(r"https?://|<script|<link|@import|url\((?!#)", page)
    assert set(re.findall(r'src="([^",]*)', page)) == {"data:image/jpeg;base64"}
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert "there &lt;is&gt; none" in page and "<is>" not in page
    assert "1 clips of test have a duplicate in train" in page
    assert json.loads((out / "inspect.json").read_text(encoding="utf-8")) == figures


def test_contact_sheet(folder, inspected, tmp_path):
    with Image.open(inspected[0] / "sheet.jpg") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels[:120, :176].std() > 10  # a picture
    inspect(folder, out=tmp_path / "a", sheet=7)
    inspect(folder, out=tmp_path / "b", sheet=7, seed=1)
    first = (inspected[0] / "sheet.jpg").read_bytes()
    assert (tmp_path / "a" / "sheet.jpg").read_bytes() == first != (tmp_path / "b" / "sheet.jpg").read_bytes()
    assert draw({"a": 3, "b": 9}, count=100, seed=0) == {"a": [0, 1, 2], "b": list(range(9))}


# --- the records ---


def test_whole_folder_is_verified(inspected):
    assert inspected[1]["verified"] == {"records": 12, "faults": 0, "first_faults": []}


def rewrite(path, change):
    reader = ArrayRecordReader(str(path))
    records = reader.read_all()
    reader.close()
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for index, record in enumerate(records):
        writer.write(change(index, record))
    writer.close()


@pytest.mark.parametrize("harm", ["frame", "swap", "flip", "gone"])
def test_faults_are_named(folder, tmp_path, capsys, harm):
    out = tmp_path / "set"
    shutil.copytree(folder, out)
    path = sorted(out.rglob("*train.array_record-00001*"))[0]

    def change(index, record):
        if index != 2:
            return record
        at = record.index(b"\xff\xd9")  # the end of a JPEG file
        return record[: at - 200] + bytes(200) + record[at:] if harm == "frame" else record.replace(b"c9", b"c0")

    if harm in ("frame", "swap"):
        rewrite(path, change)
    elif harm == "flip":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))
    else:
        path.unlink()
    assert twinreel(["inspect", str(out), "--verify", "--vocab_size", "400"]) == 1
    printed = capsys.readouterr().out.replace("\n", "")
    assert path.name in printed
    expected = {"frame": "record 2", "swap": "record 2", "flip": "SHA-256", "gone": "the file is missing"}[harm]
    assert expected in printed


# --- the command line ---


def test_command_line(folder, tmp_path, capsys):
    assert twinreel(["inspect", str(folder), "--vocab_size", "400", "--out", str(tmp_path / "page")]) == 0
    printed = capsys.readouterr().out
    for part in ("what is there", "how it is spread", "48x32", "file does not exist", "1 exact", "index.html"):
        assert part in printed
    with pytest.raises(SystemExit):
        twinreel(["inspect", "--help"])
    assert "exit status 1 if anything is wrong" in capsys.readouterr().out


def test_bad_folders(folder, tmp_path, capsys):
    assert twinreel(["inspect", str(tmp_path)]) == 2
    assert "no prepared folder" in capsys.readouterr().err
    (tmp_path / "prepare.json").write_text("{}")
    with pytest.raises(UserError, match="damaged or of another version"):
        inspect(tmp_path)
    with pytest.raises(UserError, match="--context_length 1"):
        inspect(folder, context_length=1)


def test_folder_without_fingerprints(folder, tmp_path):
    out = tmp_path / "set"
    shutil.copytree(folder, out)
    rows = [json.loads(line) for line in (out / "clips.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        for name in ("sha256", "phash", "motion", "source"):
            del row[name]
    (out / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = inspect(out, out=tmp_path / "page", vocab_size=400)
    assert figures["duplicates"] is None
    assert figures["splits"]["train"]["source_sizes"] == {}
    assert "this folder has no fingerprints" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_clips_without_a_fingerprint_are_left_out_of_the_search():
    print_of = {"sha256": "x", "phash": [""] * 8, "motion": [""] * 8, "duration_s": 1.0, "split": "train"}
    rows = [{**print_of, "clip_id": name} for name in "ab"] + [{"clip_id": "c", "split": "train", "duration_s": 1.0}]
    assert _duplicates(rows)["exact"] == 1
    assert _duplicates(rows[2:]) is None


# --- degenerate data ---


@pytest.fixture(scope="module")
def single(media, tmp_path_factory):
    """One clip of one frame in each of two splits."""
    root = tmp_path_factory.mktemp("single")
    clips = []
    for number, split in enumerate(("train", "val")):
        media.write(root / f"{number}.mp4", media.grey(50 + 100 * number))
        clips.append(Clip(clip_id=split, path=f"{number}.mp4", captions=("狗",), split=split))
    write_manifest(root / "m.jsonl", clips=clips)
    prepare(root / "m.jsonl", out=root / "set", fps=0, short_side=0, workers=1)
    return root / "set"


@pytest.mark.parametrize("sheet", [0, 1, 24])
def test_one_clip_in_a_split(single, tmp_path, sheet):
    figures = inspect(single, out=tmp_path, sheet=sheet, verify=True)
    for found in figures["splits"].values():
        assert (found["clips"], found["frames"], found["captions"]) == (1, 1, 1)
        assert found["tokens"]["min"] == found["tokens"]["max"] and found["duration_s"]["counts"] == [1]
    assert figures["verified"]["faults"] == 0
    assert (tmp_path / "sheet.jpg").exists() == (sheet > 0)


@pytest.mark.parametrize("without", [("train",), ("train", "val")])
def test_clips_without_captions(single, tmp_path, capsys, without):
    out = shutil.copytree(single, tmp_path / "set")
    rows = [json.loads(line) for line in (out / "clips.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["captions"] = [] if row["split"] in without else row["captions"]
    (out / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert twinreel(["inspect", str(out), "--out", str(tmp_path / "page")]) == 0
    assert "what is there" in capsys.readouterr().out
    figures = json.loads((tmp_path / "page" / "inspect.json").read_text(encoding="utf-8"))
    assert figures["splits"]["train"]["tokens"]["counts"] == [] and figures["splits"]["train"]["truncated"] == 0
    trained = "val" not in without
    assert figures["tokenizer"].startswith("SentencePiece" if trained else "no tokenizer")
    assert figures["splits"]["val"]["tokens"]["counts"] == ([1] if trained else [])

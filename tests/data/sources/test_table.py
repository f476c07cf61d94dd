"""Tables of clips: rows to clips, columns by their names, and faults named with line, value and remedy."""

import json

import pyarrow
import pytest
from files import write
from pyarrow import parquet

from twinreel.base.errors import UserError
from twinreel.data.manifest import Clip
from twinreel.data.sources.notes import Notes
from twinreel.data.sources.read import read_source
from twinreel.data.sources.table import read_table


def read(path, text, **options):
    notes = Notes()
    return read_table(write(path, text, **options), notes=notes), notes.lines()


def test_rows_of_one_path_and_window_are_captions_of_one_clip(tmp_path):
    clips, notes = read(
        tmp_path / "clips.csv",
        "\ufeffPath, Caption,start_s,end_s,split,label,group\r\n"
        'v/a.mp4,"a dog, running",,,train,run,g1\r\n'
        "v/a.mp4,一只狗,,,train,run,g1\r\n"
        "v/b.mp4,first half,0,2.5,test,,\r\n"
        "\r\n"
        "v/b.mp4,second half,2.5,,test,,\r\n"
        "v/b.mp4,the first half again,0:00,00:00:02.50,test,,\r\n",
    )
    first, second = {"start_s": 0.0, "end_s": 2.5}, {"start_s": 2.5}
    captions = ("first half", "the first half again")
    dog = Clip(
        clip_id="v/a",
        path="v/a.mp4",
        captions=("a dog, running", "一只狗"),
        split="train",
        labels=("run",),
        meta={"group": "g1"},
    )
    assert clips == [
        dog,
        Clip(clip_id="v/b@0.0-2.5", path="v/b.mp4", captions=captions, split="test", **first),
        Clip(clip_id="v/b@2.5-", path="v/b.mp4", captions=("second half",), split="test", **second),
    ]
    assert notes == ["columns kept as meta: 1 ('group')"]


def test_texts_of_any_length(tmp_path):
    long = "word " * 100_000
    clips, _ = read(tmp_path / "c.csv", f"path,caption\na.mp4,{long}\nb.mp4,\nc.mp4,   \n")
    assert [clip.captions for clip in clips] == [(long,), (), ()]


def test_ids_keep_what_tells_them_apart(tmp_path):
    clips, _ = read(tmp_path / "c.csv", "path,caption\nx/a.mp4,one\nx/a.mov,two\nx/b.mp4,three\n x/b.mp4,four\n")
    assert [clip.clip_id for clip in clips] == ["x/a.mp4", "x/a.mov", "x/b.mp4", " x/b.mp4"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("separator", "name"), [(",", ""), ("\t", "tabs"), (";", "semicolons"), ("|", "vertical bars")]
)
def test_separator_is_recognised(tmp_path, separator, name, end):
    rows = [("path", "caption", "split"), ("v/a.mp4", '"a dog, a;b\t|"', "train"), ("v/b.mp4", "two", "test")]
    clips, notes = read(tmp_path / "c.csv", end.join(separator.join(row) for row in rows))
    assert [(clip.path, clip.captions) for clip in clips] == [("v/a.mp4", ("a dog, a;b\t|",)), ("v/b.mp4", ("two",))]
    assert notes == ([f"tables read with {name} between the fields: 1 ({str(tmp_path / 'c.csv')!r})"] if name else [])


def test_separator_of_a_tsv_and_excels_hint(tmp_path):
    clips, notes = read(tmp_path / "c.tsv", "path\tcaption\na.mp4\tone, two\n")
    assert clips[0].captions == ("one, two",) and notes == []
    clips, _ = read(tmp_path / "c.csv", "sep=;\r\npath;caption\r\na.mp4;one\r\n")
    assert clips[0].captions == ("one",)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "path,text,split\na.mp4,x,train\n",
            ["no column 'caption'", "path, text, split", "rename 'text' to 'caption'"],
        ),
        ("path,captions\na.mp4,x\n", ["no column 'caption'", "rename 'captions' to 'caption'"]),
        ("video,caption\na.mp4,x\n", ["no column 'path'", "video, caption", "rename 'video' to 'path'"]),
        (
            "filepath\ttitle\na.mp4\tx\n",
            ["(separated by tabs)", "'filepath' to 'path' and rename 'title' to 'caption'"],
        ),
        ("file_name,sentence\na,x\n", ["rename 'file_name' to 'path'", "rename 'sentence' to 'caption'"]),
        ("videoid,name\na,x\n", ["rename 'videoid' to 'path'", "rename 'name' to 'caption'"]),
        ("a,b\n1,2\n", ["add the column 'path' and add the column 'caption'"]),
        ("", ["no column 'path'", "none"]),
        ("path,caption\n", ["has a header but no row"]),
        ("path,caption,start\na.mp4,x,1\n", ["unknown column 'start'", "did you mean 'start_s'"]),
        ("path,caption,end_time\na.mp4,x,1\n", ["unknown column 'end_time'", "did you mean 'end_s'"]),
        ("path,caption,spilt\na.mp4,x,1\n", ["unknown column 'spilt'", "did you mean 'split'"]),
        ("path,caption,caption\na.mp4,x,y\n", ["column 'caption' twice"]),
        ("path,caption\na.mp4,a dog, running\n", ["line 2", "3 fields", "double quotes"]),
        ("path,caption,start_s\na.mp4,x,soon\n", ["line 2", "'start_s'", "'soon'", "12.5", "00:01:02.5"]),
        ('path;caption;start_s\na.mp4;x;"2,5"\n', ["line 2", "'2,5'", "decimal point: 2.5"]),
        ("path,caption\n,x\n", ["line 2", "'path'"]),
        ("path,caption,split\na.mp4,x,Train\n", ["line 2", "'split'", "('train'?)"]),
        ("path,caption,split\na.mp4,x,train\na.mp4,y,test\n", ["line 3", "'test'", "'train'", "must agree"]),
        ('path,caption\na.mp4,"x\ny"\nb.mp4,"open\n', ["line 4: the quote that opens here is never closed"]),
        (
            'path,caption\na.mp4,"x\ny\nz" tail\n',
            ["line 2", "text follows the quote that closes", "in line 4", "twice"],
        ),
        ('path,caption\na.mp4,"a ""quoted" tail\nb.mp4,y\n', ["line 2", "text follows", 'as "a ""quoted"" word"']),
    ],
)
def test_fault_is_named(tmp_path, text, parts):
    with pytest.raises(UserError) as error:
        read(tmp_path / "c.csv", text)
    for part in [str(tmp_path / "c.csv"), *parts]:
        assert part in str(error.value)


def test_quote_among_thousands_of_lines(tmp_path):
    lines = ["path,caption", *(f"v/{n}.mp4,caption {n}" for n in range(5000))]
    for row, says in (('v/3000.mp4,"a ""quoted" tail', "text follows"), ('v/3000.mp4,"never closed', "never closed")):
        lines[3001] = row
        with pytest.raises(UserError, match=rf"c\.csv, line 3002: .*{says}"):
            read(tmp_path / "c.csv", "\n".join(lines) + "\n")


def test_texts_that_are_not_utf8(tmp_path):
    with pytest.raises(UserError, match=r"line 3: is not UTF-8 .*b'\\xe4' at byte 6 of the line"):
        read(tmp_path / "c.csv", "path,caption\nb.mp4,x\na.mp4,ä\n", encoding="latin-1")
    with pytest.raises(UserError, match="is UTF-16"):
        read(tmp_path / "c.csv", "path,caption\na.mp4,x\n", encoding="utf-16")


def test_faults_of_all_rows_are_reported_together(tmp_path):
    rows = [f"{n}.mp4,x,{'soon' if n % 2 else ''}" for n in range(4000)]
    rows[10], rows[3999] = "10.mp4,a dog, running,", '"open'
    with pytest.raises(UserError) as error:
        read(tmp_path / "c.csv", "path,caption,start_s\n" + "\n".join(rows) + "\n")
    message = str(error.value)
    assert "has 2,001 faults" in message and message.endswith("and 1,981 more") and message.count("\n") == 21
    for part in ("line 3: column 'start_s' is 'soon'", "line 12: has 4 fields"):
        assert part in message


def test_impossible_windows_are_faults_of_their_rows(tmp_path):
    windows = {"ok": "0,2", "empty": "2,2", "backwards": "3,1", "negative": "-1,2", "nan": "nan,", "far": "0,inf"}
    clips, _ = read(
        tmp_path / "c.csv", "path,caption,start_s,end_s\n" + "".join(f"a,{k},{v}\n" for k, v in windows.items())
    )
    wanted = "wanted seconds from the start of the file, 0 or more"
    reasons = {clip.captions[0]: clip.meta.get("refused", "") for clip in clips}
    assert reasons == {
        "ok": "",
        "empty": "impossible window: end_s=2 is not after start_s=2 (c.csv, line 3)",
        "backwards": "impossible window: end_s=1 is not after start_s=3 (c.csv, line 4)",
        "negative": f"impossible window: start_s=-1, {wanted} (c.csv, line 5)",
        "nan": f"impossible window: start_s=nan, {wanted} (c.csv, line 6)",
        "far": f"impossible window: end_s=inf, {wanted} (c.csv, line 7)",
    }


def test_columns_that_no_field_holds_are_named(tmp_path):
    text = ",path,caption,width,category\n0,a.mp4,one,640,run\n1,a.mp4,two,320,run\n"
    [clip], notes = read(tmp_path / "c.csv", text)
    assert clip.captions == ("one", "two") and clip.meta == {"width": "640", "category": "run"}
    assert notes == [
        "columns kept as meta: 2 ('width', 'category (rename it to use it as label)')",
        "cells of a column without a name left out (name the column to keep it as meta): 2 "
        f"({str(tmp_path / 'c.csv') + ', line 2'!r}, {str(tmp_path / 'c.csv') + ', line 3'!r})",
        "rows whose further columns differ from the clip's first row, which is kept: 1 "
        f"({str(tmp_path / 'c.csv') + ', line 3'!r})",
    ]


def test_metadata_of_hugging_face(tmp_path):
    clips, notes = read(tmp_path / "metadata.csv", "file_name,text,width\nv/a.mp4,a dog,640\n")
    assert [(clip.path, clip.captions, clip.meta) for clip in clips] == [("v/a.mp4", ("a dog",), {"width": "640"})]
    assert "tables whose columns were read as Hugging Face names them (file_name as path, text as caption)" in notes[0]
    lines = [{"file_name": "a.mp4", "text": ["one", "two"], "fps": 25}, {"file_name": "b.mp4", "caption": "three"}]
    clips, _ = read(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, lines)))
    assert [clip.captions for clip in clips] == [("one", "two"), ("three",)] and clips[0].meta == {"fps": 25}
    with pytest.raises(UserError, match="line 2: has no column 'path'"):
        read(tmp_path / "metadata.jsonl", '{"file_name": "a", "text": "x"}\n{"text": "x"}\n')
    with pytest.raises(UserError, match=r"line 1: .*'text' is given twice"):
        read(tmp_path / "metadata.jsonl", '{"file_name": "a", "text": "x", "text": "y"}\n')


def test_parquet_tables_and_metadata_of_hugging_face(tmp_path):
    """Written by pyarrow: numbers, lists of captions, empty cells, and what no clip can hold."""
    table = {
        "file_name": ["a.mp4", "b.mp4", "b.mp4"],
        "text": ["one", "two", "three"],
        "start_s": [None, 1.5, 1.5],
        "end_s": [None, 3.0, 3.0],
        "score": [0.5, float("nan"), float("nan")],
        "raw": [b"x", b"y", b"z"],
    }
    for name in ("metadata.parquet", "train.parquet"):
        parquet.write_table(pyarrow.table(table), tmp_path / name)
        notes = Notes()
        first, second = read_table(tmp_path / name, notes=notes)
        assert (first.path, first.captions, first.start_s, first.meta) == ("a.mp4", ("one",), None, {"score": 0.5})
        assert (second.captions, second.start_s, second.end_s, second.meta) == (("two", "three"), 1.5, 3.0, {})
        assert any(line.startswith("values of Parquet columns left out") and ": 3 " in line for line in notes.lines())
    listed = {"path": ["a.mp4"], "caption": [["one", "two"]]}
    parquet.write_table(pyarrow.table(listed), tmp_path / "c.parquet")
    [clip] = read_source(tmp_path / "c.parquet").clips
    assert clip.captions == ("one", "two")


def test_folder_with_parquet_metadata(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.mp4").touch()
    parquet.write_table(
        pyarrow.table({"file_name": ["a.mp4"], "caption": ["one"]}), tmp_path / "train/metadata.parquet"
    )
    [clip] = read_source(tmp_path).clips
    assert (clip.path, clip.captions, clip.split) == ("train/a.mp4", ("one",), "train")


def test_parquet_that_is_none_or_lacks_columns(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read as Parquet"):
        read_table(tmp_path / "a.parquet", notes=Notes())
    parquet.write_table(pyarrow.table({"video": ["a.mp4"], "text": ["one"]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"rename 'video' to 'path' and rename 'text' to 'caption'"):
        read_table(tmp_path / "b.parquet", notes=Notes())
    parquet.write_table(pyarrow.table({"path": [b"a.mp4"], "caption": ["one"]}), tmp_path / "c.parquet")
    with pytest.raises(UserError):
        read_table(tmp_path / "c.parquet", notes=Notes())

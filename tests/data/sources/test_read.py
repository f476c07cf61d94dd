"""What a source is, by its name; and what is said of a source that is none."""

import pytest
from files import touch, write

from twinreel.base.errors import UserError
from twinreel.data.manifest import Clip, write_manifest
from twinreel.data.sources.read import read_source


def test_manifest_is_passed_on(tmp_path):
    clips = [Clip(clip_id="a", path="x/a.mp4", captions=("one",), split="test")]
    write_manifest(tmp_path / "m.jsonl", clips=clips)
    listing = read_source(tmp_path / "m.jsonl")
    assert (listing.root, listing.clips, listing.notes.lines()) == (tmp_path, clips, [])


def test_table_is_read_by_its_suffix(tmp_path):
    listing = read_source(write(tmp_path / "c.TSV", "path\tcaption\na.mp4\tone, two\n"))
    assert listing.root == tmp_path and listing.clips[0].captions == ("one, two",)
    assert listing.clips[0].split in ("train", "val", "test")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("clips.arrow", "pandas.read_feather('clips.arrow').to_csv"),
        ("clips.xlsx", "pandas.read_excel('clips.xlsx').to_csv"),
        ("clips.doc", "give a manifest (.jsonl), a .csv, a folder of videos or .tar archives"),
    ],
)
def test_lists_that_are_not_read(tmp_path, name, remedy):
    with pytest.raises(UserError) as error:
        read_source(write(tmp_path / name, "x"))
    assert "is of no known kind" in str(error.value) and remedy in str(error.value)


def test_missing_and_empty_sources(tmp_path):
    with pytest.raises(UserError, match="does not exist; give a manifest"):
        read_source(tmp_path / "none")
    with pytest.raises(UserError, match=r"has no video and no picture \(looked for"):
        read_source(tmp_path)
    touch(tmp_path, "clips.jsonl")
    with pytest.raises(UserError, match=r"it has clips\.jsonl: give that file instead"):
        read_source(tmp_path)

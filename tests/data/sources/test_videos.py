"""Videos found by name under one folder: suffixes, subfolders, other forms, doubles, and what is missing."""

import pytest
from files import touch

from twinreel.base.errors import UserError
from twinreel.data.manifest import Clip
from twinreel.data.sources.registry import SOURCES
from twinreel.data.sources.videos import locate


def clip(path, clip_id=None, **fields):
    return Clip(clip_id=clip_id or path, path=path, captions=("x",), split="test", **fields)


@pytest.fixture
def find(tmp_path):
    def finder(source, clips, *files):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        found = locate(clips, folder=tmp_path, alternatives=SOURCES[source].alternatives)
        return found, [c.path for c in found.present], [c.path for c in found.missing]

    return finder


def test_any_suffix_and_any_subfolder(find):
    clips = [clip("video1"), clip("video2"), clip("video3"), clip("video4"), clip("video10")]
    files = ["video1.mp4", "a/b/video2.WEBM", "video3.txt", ".hidden/video4.mp4", "video10.avi"]
    found, present, missing = find("msrvtt", clips, *files)
    assert present == ["video1.mp4", "a/b/video2.WEBM", "video10.avi"]
    assert missing == ["video3", "video4"]
    assert found.several == 0


def test_names_with_dots_and_suffixes(find):
    clips = [clip("u_1.mov"), clip("u_2."), clip("u_3.avi"), clip("u_4.3gp"), clip("u_5.mpg"), clip("u_6.")]
    files = ["u_1.mov", "u_2.mp4", "u_3.avi.mp4", "u_4.mp4", "u_5.txt", "u_6."]
    _, present, missing = find("didemo", clips, *files)
    assert present == ["u_1.mov", "u_2.mp4", "u_3.avi.mp4", "u_4.mp4", "u_6."]
    assert missing == ["u_5.mpg"]
    assert find("msrvtt", [clip("video1.avi")], "video1.avi")[1] == ["video1.avi"]
    name = "m_Film_00.00.32.161-00.00.35.402"
    assert find("lsmdc", [clip(name)], f"m_Film/{name}.avi")[1] == [f"m_Film/{name}.avi"]


def test_the_class_folder_decides_between_files_of_one_name(find):
    clips = [clip("shoot_bow/a"), clip("draw_sword/a"), clip("bow/a"), clip("run/b")]
    found, present, _ = find("hmdb51", clips, "x/shoot_bow/a.avi", "draw_sword/a.avi", "flat/b.avi")
    assert present == ["x/shoot_bow/a.avi", "draw_sword/a.avi", "draw_sword/a.avi", "flat/b.avi"]
    assert found.several == 1  # bow/a: no such folder, and two files of that name


def test_trimmed_file_goes_before_the_whole_video_which_is_cut(find):
    clips = [clip("a_000012_000022"), clip("b_000000_000010")]
    found, present, _ = find("kinetics400", clips, "zumba/a_000012_000022.mp4", "a.mp4", "b.mkv")
    assert present == ["zumba/a_000012_000022.mp4", "b.mkv"]
    assert [(c.start_s, c.end_s) for c in found.present] == [(None, None), (0.0, 10.0)]


def test_activitynet_with_and_without_its_prefix(find):
    found, present, missing = find("activitynet", [clip("v_a", start_s=1.0), clip("v_b")], "a.mp4", "v_b.mkv", "b.mp4")
    assert present == ["a.mp4", "v_b.mkv"]
    assert found.present[0].start_s == 1.0
    assert missing == []


def test_two_files_of_one_name_are_counted_and_the_first_taken(find):
    found, present, _ = find("msrvtt", [clip("video1")], "b/video1.mp4", "a/video1.webm")
    assert (present, found.several) == (["a/video1.webm"], 1)


def test_links_are_followed_once(find, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "round").symlink_to(tmp_path)
    found, present, _ = find("msrvtt", [clip("video1")], "video1.mp4")
    assert (present, found.files) == (["video1.mp4"], 1)


def test_names_in_any_script(find, tmp_path):
    (tmp_path / "a\udcff.mp4").touch()  # a name that is not UTF-8
    _, present, missing = find("msrvtt", [clip("влог 1"), clip("a\u00a0b"), clip("a")], "влог 1.mp4", "x/a\u00a0b.mp4")
    assert (present, missing) == (["влог 1.mp4", "x/a\u00a0b.mp4"], ["a"])


def test_names_that_lead_out_of_the_folder_are_not_followed(find, tmp_path):
    (tmp_path.parent / "secret.mp4").touch()
    _, present, missing = find("msrvtt", [clip("../secret"), clip("/etc/passwd")], "video1.mp4")
    assert (present, missing) == ([], ["../secret", "/etc/passwd"])


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match=r"--videos .*is not a folder"):
        locate([clip("a")], folder=tmp_path / "none", alternatives=SOURCES["msrvtt"].alternatives)


def test_names_in_another_unicode_form(tmp_path):
    touch(tmp_path, "cafe\u0301/gro\u0308\u00dfe.mp4", "other/gr\u00f6\u00dfe.webm")
    clip = Clip(clip_id="a", path="caf\u00e9/gr\u00f6\u00dfe")
    assert (
        locate([clip], folder=tmp_path, alternatives=lambda _: ()).present[0].path == "cafe\u0301/gro\u0308\u00dfe.mp4"
    )

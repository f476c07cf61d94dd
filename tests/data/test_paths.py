"""The one opener: local files, members of archives, files behind URLs; and what it says where it cannot."""

import io
import os
import tarfile

import fsspec
import pytest

from twinreel.base.errors import UserError
from twinreel.data import paths, remote


@pytest.fixture
def archive(tmp_path):
    """A local archive of two members, and their contents."""
    files = {"a.txt": b"hello", "d/b c::x.bin": os.urandom(5000)}
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as out:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
        out.addfile(_link())
    return path, files


def _link():
    info = tarfile.TarInfo("link.txt")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


def put(url, data):
    with fsspec.open(url, "wb") as file:
        file.write(data)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("a/x.tar::b.mp4", ("a/x.tar", "b.mp4", None, None)),
        ("s3://b/x.tar::d/b::c.mp4", ("s3://b/x.tar", "d/b::c.mp4", None, None)),
        ("x.tar::512+9::b.mp4", ("x.tar", "b.mp4", 512, 9)),
        ("x.tar::512::b.mp4", ("x.tar", "512::b.mp4", None, None)),
        ("x.tar::y.tar::b.mp4", ("x.tar", "y.tar::b.mp4", None, None)),
    ],
)
def test_names_of_members(path, wanted):
    member = paths.member_of(path)
    assert (member.archive, member.name, member.offset, member.size) == wanted
    assert str(member) == path


def test_other_paths_are_no_members():
    for path in ("x.tar", "a::b.mp4", "x.tar::", "x.tar:b", "s3://b/k.mp4"):
        assert paths.member_of(path) is None
    assert paths.is_plain("a/b.mp4") and not paths.is_plain("s3://b/k") and not paths.is_plain("x.tar::y")
    assert not paths.is_remote("C://x") and not paths.is_remote("a://b"[:1] + "/b")


def test_join():
    assert paths.join("a/b", "c.mp4") == "a/b/c.mp4"
    assert paths.join("a", "/c.mp4") == "/c.mp4"  # one's own manifest may name any file
    assert paths.join("a", "../c.mp4") == "a/../c.mp4"
    assert paths.join("a", "s3://b/c.mp4") == "s3://b/c.mp4"
    assert paths.join("a", "x.tar::1+2::y//z") == "a/x.tar::1+2::y//z"
    assert paths.join("s3://b/", "c/d.mp4") == "s3://b/c/d.mp4"
    assert paths.join("s3://b", "x.tar::../d.mp4") == "s3://b/x.tar::../d.mp4"  # names inside lead nowhere


@pytest.mark.parametrize("path", ["/etc/passwd", "../c.mp4", "a/../../c", "../x.tar::y"])
def test_remote_list_cannot_name_files_outside_its_folder(path):
    with pytest.raises(UserError, match="leaves the folder"):
        paths.join("s3://b/folder", path)


def test_folder_and_name():
    assert (paths.folder_of("a/b.jsonl"), paths.folder_of("b.jsonl")) == ("a", ".")
    assert paths.folder_of("s3://b/c/m.jsonl") == "s3://b/c"
    assert paths.file_name("s3://b/c/m.jsonl") == "m.jsonl" and paths.file_name("x.tar::1+2::d/e.mp4") == "e.mp4"


def test_member_is_read_in_place(archive):
    path, files = archive
    for name, data in files.items():
        for form in (f"{path}::{name}", paths.pin(f"{path}::{name}")):
            assert paths.exists(form) and paths.size(form) == len(data)
            with paths.open_binary(form) as file:
                assert file.read() == data
                assert file.seek(-3, os.SEEK_END) == len(data) - 3 and file.read() == data[-3:]
                assert file.seek(2) == 2 and file.read(2) == data[2:4] and file.tell() == 4
                assert file.seek(10_000) and file.read() == b""
    assert paths.pin("plain.mp4") == "plain.mp4"


def test_link_in_an_archive_leads_nowhere(archive):
    assert not paths.exists(f"{archive[0]}::link.txt")
    with pytest.raises(remote.NoSuchFile, match=r"no member 'link\.txt'"):
        paths.open_binary(f"{archive[0]}::link.txt")


def test_archive_that_became_shorter_is_named(archive):
    path, _ = archive
    pinned = paths.pin(f"{path}::d/b c::x.bin")
    os.truncate(path, 2000)
    with pytest.raises(UserError, match=r"ends at byte 2,000, but member 'd/b c::x\.bin' at"):
        paths.open_binary(pinned)


def test_archive_that_is_replaced_is_looked_up_anew(archive):
    path, _ = archive
    assert paths.size(f"{path}::a.txt") == 5
    with tarfile.open(path, "w") as out:
        info = tarfile.TarInfo("a.txt")
        info.size = 7
        out.addfile(info, io.BytesIO(b"another"))
    with paths.open_binary(f"{path}::a.txt") as file:
        assert file.read() == b"another"


def test_local_faults(tmp_path):
    with pytest.raises(remote.NoSuchFile, match="does not exist"):
        paths.open_binary(tmp_path / "no")
    with pytest.raises(remote.NoSuchFile, match="does not exist"):
        paths.size(f"{tmp_path}/no.tar::a")
    with pytest.raises(UserError, match="is a folder"):
        paths.open_binary(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        paths.listing(tmp_path / "no", suffix=".tar")
    assert not paths.exists(tmp_path / "no") and not paths.exists(tmp_path)


def test_unknown_scheme_and_missing_package(monkeypatch):
    with pytest.raises(UserError, match=r"unknown scheme 'nosuch'; use a local path, s3://, gs://"):
        paths.open_binary("nosuch://a/b")
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"gs:// needs a package that is not installed; pip install 'twinreel\[gcs\]'"):
        paths.open_binary("gs://a/b")


def test_memory_and_file_urls(tmp_path):
    put("memory://paths/x", b"abc")
    with paths.open_binary("memory://paths/x") as file:
        assert file.read() == b"abc"
    (tmp_path / "y").write_bytes(b"local")
    with paths.open_binary(f"file://{tmp_path}/y") as file:
        assert file.read() == b"local"


def test_s3(s3, archive):
    path, files = archive
    put(f"{s3}/x.tar", path.read_bytes())
    put(f"{s3}/plain.bin", b"plain")
    assert paths.exists(f"{s3}/plain.bin") and not paths.exists(f"{s3}/other.bin") and not paths.exists(s3)
    assert paths.size(f"{s3}/plain.bin") == 5
    assert paths.listing(s3, suffix=".tar") == [f"{s3}/x.tar"]
    assert remote.walk(s3) == {"x.tar": path.stat().st_size, "plain.bin": 5}
    for name, data in files.items():
        for form in (f"{s3}/x.tar::{name}", paths.pin(f"{s3}/x.tar::{name}")):
            with paths.open_binary(form) as file:
                assert file.read() == data
    with pytest.raises(remote.NoSuchFile, match="does not exist"):
        paths.open_binary(f"{s3}/other.bin")
    with pytest.raises(remote.NoSuchFile, match=r"'s3://nosuchbucket/a' does not exist \(bucket or file\)"):
        paths.size("s3://nosuchbucket/a")


def test_s3_large_member_is_read_in_parts(s3, monkeypatch):
    data = os.urandom(300_000)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("big.bin")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    put(f"{s3}/x.tar", out.getvalue())
    monkeypatch.setattr(remote, "_WHOLE", 1000)
    monkeypatch.setattr(remote, "_BLOCK", 50_000)
    with paths.open_binary(f"{s3}/x.tar::big.bin") as file:
        assert file.seek(200_000) and file.read(10) == data[200_000:200_010]
        file.seek(0)
        assert file.read() == data


def test_what_has_changed_behind_a_url_is_seen(s3):
    put(f"{s3}/a", b"1")
    assert paths.listing(s3, suffix="") == [f"{s3}/a"]
    put(f"{s3}/a", b"22")
    put(f"{s3}/b", b"3")
    assert paths.size(f"{s3}/a") == 2 and len(paths.listing(s3, suffix="")) == 2


def test_no_permission(s3, s3_proxy):
    put(f"{s3}/secret", b"1")
    s3_proxy.fault = lambda method, path: 403
    with pytest.raises(UserError, match=r"secret' may not be read or written .*check the credentials and the rights"):
        paths.open_binary(f"{s3}/secret")


def test_download_that_breaks_off_is_tried_again_and_never_half(s3, s3_proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_WAIT_S", 0.01)
    data = os.urandom(20_000)
    put(f"{s3}/shard", data)
    told = []
    s3_proxy.fault = lambda method, path: "cut" if method == "GET" and path.endswith("shard") else None
    with pytest.raises(UserError, match="shard'"):
        remote.download(f"{s3}/shard", to=tmp_path / "x", size=len(data), advance=told.append)
    assert not (tmp_path / "x").exists() and sum(told) == 0
    s3_proxy.fault = lambda method, path: None
    remote.download(f"{s3}/shard", to=tmp_path / "x", size=len(data), advance=told.append)
    assert (tmp_path / "x").read_bytes() == data and sum(told) == len(data)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    with pytest.raises(UserError, match=r"gave 20,000 bytes, wanted 20,001"):
        remote.download(f"{s3}/shard", to=tmp_path / "y", size=len(data) + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]

"""Headers of tar archives: as tarfile and GNU tar write them, and as nobody should."""

import io
import os
import struct
import subprocess
import tarfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twinreel.data.tars import BLOCK, TarError, members


def packed(*files, format=tarfile.USTAR_FORMAT, closed=True):
    """An archive of `(name, contents)` or TarInfo, written by tarfile."""
    out = io.BytesIO()
    archive = tarfile.open(fileobj=out, mode="w", format=format)  # noqa: SIM115
    for item in files:
        if isinstance(item, tarfile.TarInfo):
            archive.addfile(item)
        else:
            info = tarfile.TarInfo(item[0])
            info.size = len(item[1])
            archive.addfile(info, io.BytesIO(item[1]))
    if closed:
        archive.close()
    return out.getvalue()


def listed(data):
    return [(m.name, m.data, m.size, m.refused) for m in members(io.BytesIO(data))]


def fault(data):
    """What comes before the fault, and the fault."""
    found = []
    with pytest.raises(TarError) as caught:
        for member in members(io.BytesIO(data)):
            found.append(member.name)
    return found, caught.value


def link(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def header(name=b"a.txt", *, size=b"00000000000", kind=b"0", magic=b"ustar\x0000", prefix=b""):
    """One header block, with a right sum."""
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:124] = b"0000644\x000000000\x000000000\x00"
    block[124 : 124 + len(size)] = size
    block[136:148] = b"00000000000\x00"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = magic
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\x00 " % sum(block)
    return bytes(block)


def padded(data):
    return data + bytes(-len(data) % BLOCK)


END = bytes(2 * BLOCK)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_as_tarfile_sees_them(format):
    long = "folder/" * 12 + "x" * 60 + ".txt"
    files = [("a.txt", b"hello"), ("é猫.mp4", b"\x01" * 1500), ("empty", b""), (long, b"y" * 512)]
    data = packed(*files, format=format)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        wanted = [(m.name, m.offset_data, m.size, "") for m in archive]
    assert listed(data) == wanted
    for (_, contents), (_, at, size, _) in zip(files, listed(data), strict=True):
        assert data[at : at + size] == contents


@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_members_as_gnu_tar_writes_them(tmp_path, format):
    (tmp_path / "d").mkdir()
    names = ["d/a.mp4", "d/b.txt"] + ([] if format in ("v7", "ustar") else ["d/" + "n" * 150 + ".json"])
    for index, name in enumerate(names):
        (tmp_path / name).write_bytes(os.urandom(700 * index + 1))
    subprocess.run(["tar", f"--format={format}", "-cf", "x.tar", "./d", "--sort=name"], cwd=tmp_path, check=True)
    data = (tmp_path / "x.tar").read_bytes()
    assert sorted(name for name, *_ in listed(data)) == sorted(names)
    for name, at, size, refused in listed(data):
        assert data[at : at + size] == (tmp_path / name).read_bytes() and not refused


def test_sparse_file_of_gnu_tar_is_refused_and_what_follows_is_found(tmp_path):
    with (tmp_path / "hole.mp4").open("wb") as file:
        for at in range(0, 2_000_000, 100_000):  # so many pieces that the map goes on in further blocks
            file.seek(at)
            file.write(b"data")
        file.truncate(50_000_000)
    (tmp_path / "z.txt").write_bytes(b"after")
    for format in ("gnu", "pax"):
        command = ["tar", f"--format={format}", "--sparse", "-cf", f"{format}.tar", "hole.mp4", "z.txt"]
        subprocess.run(command, cwd=tmp_path, check=True)
        data = (tmp_path / f"{format}.tar").read_bytes()
        assert len(data) < 1_000_000
        (_, _, _, refused), (name, at, size, sound) = listed(data)
        assert refused == "is a sparse file"
        assert (name, data[at : at + size], sound) == ("z.txt", b"after", "")


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (link("a.mp4", tarfile.SYMTYPE, "/etc/passwd"), "is a symbolic link"),
        (link("a.mp4", tarfile.LNKTYPE, "b.mp4"), "is a hard link"),
        (link("a.mp4", tarfile.CHRTYPE), "is a device"),
        (link("a.mp4", tarfile.BLKTYPE), "is a device"),
        (link("a.mp4", tarfile.FIFOTYPE), "is a pipe"),
        (link("a.mp4", b"q"), "is of the unknown kind b'q'"),
        (("/etc/a.mp4", b"x"), "has an absolute name"),
        (("../a.mp4", b"x"), "has a name with '..' in it"),
        (("x/../../a.mp4", b"x"), "has a name with '..' in it"),
        (("x\\..\\a.mp4", b"x"), "has a name with '..' in it"),
        (("C:\\a.mp4", b"x"), "has an absolute name"),
        (("a\n.mp4", b"x"), "has control characters in its name"),
    ],
)
def test_refused_members(item, reason):
    data = packed(("first.txt", b"1"), item, ("last.txt", b"2"))
    (first, *_), (_, _, _, refused), (last, at, size, sound) = listed(data)
    assert (first, refused, last, sound) == ("first.txt", reason, "last.txt", "")
    assert data[at : at + size] == b"2"


def test_names_that_are_too_long_or_not_utf8():
    long = packed(("x" * 5000, b"1"), ("b", b"2"), format=tarfile.GNU_FORMAT)
    (name, _, _, refused), (after, *_) = listed(long)
    assert refused == "has a name of more than 4,096 bytes" and len(name) == 4096 and after == "b"
    [(name, _, _, refused)] = listed(header(b"\xff\xfe.mp4") + END)
    assert (name, refused) == ("\\xff\\xfe.mp4", "has a name that is not UTF-8")


def test_dot_in_front_is_no_part_of_the_name_and_folders_are_no_members():
    assert [name for name, *_ in listed(packed(link("./", tarfile.DIRTYPE), ("./a.mp4", b"1")))] == ["a.mp4"]


def test_large_binary_size():
    data = header(size=b"\x80" + (5).to_bytes(11, "big")) + padded(b"hello") + END
    assert listed(data) == [("a.txt", 512, 5, "")]


def test_compressed_archives_are_named(tmp_path):
    import bz2
    import gzip
    import lzma

    whole = packed(("a", b"1"))
    for pack, name in ((gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")):
        data = pack(whole + os.urandom(1000))
        assert name in fault(data)[1].what


# --- bombs and damage ---


def test_size_beyond_the_end_is_named_with_its_place():
    data = packed(("a", b"1" * 600))[: 3 * BLOCK] + header(b"bomb.mp4", size=b"77777777777") + bytes(2048)
    found, error = fault(data)
    assert found == ["a"] and error.offset == 3 * BLOCK
    assert "8,589,934,591 bytes, of which 2,048 are there" in str(error)


def test_every_truncation_is_noticed():
    data = packed(("a.mp4", b"x" * 700), ("b.txt", b"y" * 10), ("c.txt", b""))
    ends = {"a.mp4": 512 + 700, "b.txt": 2048 + 10, "c.txt": 3072}
    for cut in range(3072):
        found, error = fault(data[:cut])
        assert found == [name for name, end in ends.items() if end <= cut]
        assert error.offset <= cut
    assert fault(data[:3072])[1].what == "the end mark is missing"
    assert [name for name, *_ in listed(data[:3584])] == list(ends)


def test_damaged_header_in_the_middle_does_not_pass_for_the_end():
    data = bytearray(packed(("a", b"1"), ("b", b"2"), ("c", b"3")))
    data[1024 + 10] ^= 1
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as archive:
        assert archive.getnames() == ["a"]  # the reason for a reader of our own
    found, error = fault(bytes(data))
    assert found == ["a"] and error.offset == 1024 and "damaged header" in error.what


def test_second_archive_behind_the_end_mark_is_noticed():
    one = packed(("a", b"1"))
    found, error = fault(one + packed(("b", b"2")))
    assert found == ["a"] and "behind the end mark" in error.what and error.offset == len(one)


def test_chain_of_long_names_takes_no_stack():
    chain = (header(b"././@LongLink", size=b"00000000002", kind=b"L") + padded(b"x\0")) * 5000
    assert [name for name, *_ in listed(chain + header(b"short") + END)] == ["x"]


def test_enormous_extended_header_is_not_read():
    class Sparing(io.BytesIO):
        def read(self, size=-1):
            assert 0 <= size <= 2**20, size
            return super().read(size)

    big = 3 * 2**20
    data = header(b"p", size=b"%011o" % big, kind=b"x") + bytes(big) + header(b"a.mp4") + header(b"b.mp4") + END
    found = list(members(Sparing(data)))
    assert [m.name for m in found] == ["a.mp4", "b.mp4"]
    assert found[0].refused.startswith("has an extended header of 3,145,728 bytes") and not found[1].refused


def test_digits_that_would_keep_a_pattern_busy_for_hours():
    digits = b"1" * (2**20 - 512)
    data = header(b"p", size=b"%011o" % len(digits), kind=b"x") + padded(digits) + header() + END
    assert "damaged extended header" in fault(data)[1].what


@pytest.mark.parametrize(
    "record",
    [
        b"0 path=x\n",
        b"6 path=x\n",
        b"99 path=x\n",
        b"-9 path=x\n",
        b"9 pathx=\n x",
        b"12 size=-5\n\n",
        b"11 size=1e9\n",
    ],
)
def test_faulty_pax_records(record):
    data = header(b"p", size=b"%011o" % len(record), kind=b"x") + padded(record) + header() + END
    assert "extended header" in fault(data)[1].what


def test_pax_size_decides_where_the_next_member_begins():
    record = b"13 size=1000\n"
    data = header(b"p", size=b"%011o" % len(record), kind=b"x") + padded(record)
    data += header(b"a.mp4") + padded(b"z" * 1000) + header(b"b") + END
    assert listed(data) == [("a.mp4", 1536, 1000, ""), ("b", 3072, 0, "")]


def test_global_header_that_names_everything_is_refused():
    record = b"17 path=evil.mp4\n"
    data = header(b"g", size=b"%011o" % len(record), kind=b"g") + padded(record) + header() + END
    assert "global header" in fault(data)[1].what


SEEDS = [
    packed(("k.mp4", b"m" * 900), ("k.txt", b"caption"), ("dé" * 25 + "/" + "é" * 30 + ".json", b"{}"), format=format)
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
]


@settings(max_examples=300, deadline=None)
@given(
    data=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 6000), st.binary(min_size=1, max_size=16)), max_size=4),
    cut=st.integers(0, 12_000),
    mend=st.booleans(),
)
@example(data=SEEDS[0], edits=[(124, b"\xff" * 12)], cut=12_000, mend=True)  # a negative size
@example(data=SEEDS[0], edits=[(124, b"\x80" + b"\xff" * 11)], cut=12_000, mend=True)
@example(data=SEEDS[2], edits=[(156, b"S"), (482, b"\x01")], cut=12_000, mend=True)  # a map of holes without end
def test_any_archive_gives_members_within_it_or_a_fault(data, edits, cut, mend):
    broken = bytearray(data)
    for at, new in edits:
        broken[at : at + len(new)] = new
    broken = broken[:cut]
    if mend:  # make the sums of all blocks right again, so that the damage gets past the first check
        for at in range(0, len(broken) - BLOCK + 1, BLOCK):
            if broken[at + 257 : at + 262] == b"ustar":
                broken[at + 148 : at + 156] = b" " * 8
                broken[at + 148 : at + 156] = b"%06o\x00 " % sum(broken[at : at + BLOCK])
    last = -1
    try:
        for count, member in enumerate(members(io.BytesIO(bytes(broken))), start=1):
            assert member.header > last and member.data + member.size <= len(broken)
            assert count <= len(broken) // BLOCK
            last = member.header
            if not member.refused:
                assert ".." not in member.name.split("/") and not member.name.startswith("/")
                member.name.encode("utf-8")
    except TarError as error:
        assert 0 <= error.offset <= len(broken)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_give_members_or_a_fault(data):
    try:
        list(members(io.BytesIO(data)))
    except TarError:
        return
    assert data.count(0) == len(data) >= BLOCK


def test_signed_sums_of_old_programs_are_right_too():
    block = bytearray(header("é.mp4".encode()))
    total = sum(struct.unpack("512b", bytes(block[:148]) + b" " * 8 + bytes(block[156:])))
    block[148:156] = b"%06o\x00 " % total
    assert [name for name, *_ in listed(bytes(block) + END)] == ["é.mp4"]

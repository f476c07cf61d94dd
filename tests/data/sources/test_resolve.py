"""Files that a list names a little differently than the disk does."""

import io
import tarfile
import unicodedata

import fsspec
import pytest
from files import touch

from twinreel.data.sources.resolve import BLANKS, FORM, SLASHES, Resolved, Resolver

NFC, NFD = (unicodedata.normalize(form, "café/größe.mp4") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("listed", "there"), [(NFC, NFD), (NFD, NFC), (NFC, NFC[:4] + NFD[5:]), (NFD, NFD[:5] + NFC[4:])]
)
def test_other_unicode_form(tmp_path, listed, there):
    touch(tmp_path, there)
    assert Resolver(tmp_path).resolve(listed) == Resolved(path=there, how=FORM)
    absolute = Resolver("elsewhere").resolve(f"{tmp_path}/{listed}")
    assert absolute == Resolved(path=f"{tmp_path}/{there}", how=FORM)


@pytest.mark.parametrize("listed", [" v/a b.mp4", "v/a b.mp4 ", "v /a b.mp4", "\tv/ a b.mp4", "v/a b.mp4\u3000"])
def test_blanks_at_the_ends(tmp_path, listed):
    touch(tmp_path, "v/a b.mp4")
    assert Resolver(tmp_path).resolve(listed) == Resolved(path="v/a b.mp4", how=BLANKS)


def test_backslashes_blanks_and_forms_together(tmp_path):
    touch(tmp_path, NFD, "v/x/a.mp4")
    assert Resolver(tmp_path).resolve(f" {NFC} ") == Resolved(path=NFD, how=BLANKS)
    assert Resolver(tmp_path).resolve("v\\x/a.mp4") == Resolved(path="v/x/a.mp4", how=SLASHES)


def test_what_is_not_certain_is_a_hint(tmp_path):
    touch(tmp_path, "v/A.MP4", f"both/{NFC[5:]}", f"both/{NFD[6:]}")
    resolver = Resolver(tmp_path)
    assert resolver.resolve("v/a.mp4") == Resolved(hint="there is 'v/A.MP4', which differs in upper and lower case")
    assert resolver.resolve("v/b.mp4") == Resolved()
    assert resolver.resolve(" v/b.mp4") == Resolved(hint="' v/b.mp4' begins or ends with a blank")
    assert resolver.resolve("none/v/b.mp4") == Resolved() and resolver.resolve("v") == Resolved()


def test_members_of_archives(tmp_path):
    with tarfile.open(tmp_path / f"{NFD[:5]}.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(NFD), io.BytesIO())
    found = Resolver(tmp_path).resolve(f"{NFC[:4]}.tar::{NFC}")
    assert found == Resolved(path=f"{NFD[:5]}.tar::{NFD}", how=FORM)
    assert Resolver(tmp_path).resolve(f"{NFC[:4]}.tar::none.mp4") == Resolved()


def test_files_behind_urls():
    with fsspec.open(f"memory://resolve/{NFD}", "wb") as file:
        file.write(b"x")
    assert Resolver("memory://resolve").resolve(NFC) == Resolved(path=NFD, how=FORM)
    assert Resolver("memory://resolve").resolve("none.mp4") == Resolved()

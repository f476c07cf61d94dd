"""Text files as editors of all systems write them."""

import pytest

from twinreel.base.errors import UserError
from twinreel.base.text_lines import text_lines


def test_lines_of_files_from_elsewhere(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffa red square\r\n\r\nzwei\u2028Zeilen\n".encode())
    assert text_lines(path, flag="--texts") == ["a red square", "", "zwei\u2028Zeilen"]
    path.write_bytes(b"")
    assert text_lines(path, flag="--texts") == []
    path.write_bytes("ein grüner Kreis".encode("latin-1"))
    with pytest.raises(UserError, match=r"--texts: .*texts\.txt cannot be read as UTF-8 text: .*; save it as UTF-8"):
        text_lines(path, flag="--texts")

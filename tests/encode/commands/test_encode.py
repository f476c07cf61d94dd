"""`twinreel encode`: flags that belong together, and what it writes."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.encode.commands import encode
from twinreel.encode.embed import encoder


class Fake:
    """An encoder whose embeddings are known."""

    def encode_video(self, paths, *, progress):
        return np.eye(3, dtype=np.float32)[: len(paths)]

    def encode_text(self, strings):
        return np.eye(3, dtype=np.float32)[::-1][: len(strings)]


def test_needs_something_to_encode_and_somewhere_to_put_it():
    with pytest.raises(UserError, match="nothing to encode"):
        encode.main(["run"])
    with pytest.raises(UserError, match=r"give --out FILE\.npz, or --text with --video, --sound or --clip"):
        encode.main(["run", "--text", "a"])


def test_writes_embeddings_with_their_names_and_prints_cosines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(encoder, "load", lambda path: Fake())
    out = tmp_path / "new" / "e.npz"
    argv = ["run", "--video", "a.mp4", "b.mp4", "--text", "one", "two", "--out", str(out)]
    assert encode.main(argv) == 0
    with np.load(out, allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["video"], np.eye(3)[:2])
        assert saved["paths"].tolist() == ["a.mp4", "b.mp4"] and saved["strings"].tolist() == ["one", "two"]
    printed = capsys.readouterr().out
    assert "two" in printed and "b.mp4" in printed and "1.000" in printed

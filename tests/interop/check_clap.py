"""CLAP in live transformers: models of other random weights, made and run now; `make test-interop` runs it.

The libraries are in the Python that TWINREEL_INTEROP_PYTHON names, which runs `golden/weights/make_clap.py`.
"""

import os
import subprocess
import sys
import wave

import numpy as np
import pytest
from public_models import GOLDEN, model_of, unit

from twinreel.encode.embed.encoder import Encoder
from twinreel.zoo.convert.convert import convert

PYTHON = os.environ.get("TWINREEL_INTEROP_PYTHON", sys.executable)
SEED = 7


@pytest.fixture(scope="module")
def made_now(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clap")
    command = [PYTHON, str(GOLDEN / "make_clap.py"), str(folder), str(SEED)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / "clap"


@pytest.mark.parametrize("name", ["unfused", "fused"])
def test_sound_files_and_strings(name, made_now, tmp_path):
    with np.load(made_now / name / "io.npz") as file:
        wanted = {key: file[key] for key in file.files}
    made = convert(made_now / name)
    paths = []
    for seed, length in enumerate(wanted["lengths"]):
        paths.append(tmp_path / f"{seed}.wav")
        with wave.open(str(paths[-1]), "wb") as file:
            file.setparams((1, 2, 48_000, 0, "NONE", ""))
            file.writeframes(wanted["sound"][seed][:length].tobytes())
    encoder = Encoder(spec=made.spec, model=model_of(made))
    np.testing.assert_allclose(encoder.encode_audio(paths), unit(wanted["audio"]), atol=1e-4)
    texts = encoder.encode_text([str(text) for text in wanted["texts"]])
    np.testing.assert_allclose(texts, unit(wanted["text"]), atol=1e-4)

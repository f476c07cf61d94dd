"""The tiny GPT-2 of the golden weights with a tokenizer of 40 words."""

import json
import shutil
from pathlib import Path

import tokenizers

GOLDEN = Path(__file__).parents[1] / "golden" / "weights"
WORDS = [f"w{n}" for n in range(36)]


def gpt2_folder(folder: Path, *, words=WORDS) -> Path:
    """Copy the weights to `folder`; as GPT-2's, the tokenizer puts nothing around a text."""
    shutil.copytree(GOLDEN / "gpt2", folder)
    names = ["<|end|>", "<pad>", "<unk>", *words]
    model = tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(names[:3])
    backend.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|end|>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder

"""Write siglip/: a tiny SigLIP model with random weights and what it gives (transformers 5.24.0, torch 2.13.0).

Run once, elsewhere: `python make_siglip.py siglip`. The tests read the files only.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from make_clip import randomised, vector
from transformers import SiglipConfig, SiglipModel

WORDS = "a dog runs over the green hill while one bird sings and two cats sleep in sun".split()  # noqa: SIM905


def pieces():
    """Return a SentencePiece model of these words."""
    written, rng = io.BytesIO(), np.random.default_rng(0)
    sentences = iter([" ".join(rng.choice(WORDS, 6)) for _ in range(400)])
    kind = {"vocab_size": 60, "model_type": "unigram", "hard_vocab_limit": False}
    ids = {"pad_id": -1, "eos_id": 1, "unk_id": 0, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=sentences, model_writer=written, **kind, **ids)
    return written.getvalue()


def pixels(frames):
    """Return what the model sees of uint8 [B,H,W,3]."""
    return torch.tensor(((frames / 255).astype(np.float32) - 0.5) / 0.5).permute(0, 3, 1, 2)


def main(folder):
    """Write the model, its tokenizer's files and io.npz."""
    torch.manual_seed(0)
    vision = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3}
    text = {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    text |= {"vocab_size": 60, "max_position_embeddings": 12, "projection_size": 24}
    model = randomised(SiglipModel(SiglipConfig(vision_config=vision, text_config=text)))
    model.save_pretrained(folder)
    (folder / "spiece.model").write_bytes(pieces())
    about = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 12, "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    shown = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 32, "width": 32}, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(shown))
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    big = rng.integers(0, 256, (2, 48, 40, 3), dtype=np.uint8)
    ids = np.ones((3, 12), np.int64)
    for row, length in enumerate((4, 9, 11)):
        ids[row, :length] = rng.integers(2, 59, length)
    with torch.no_grad():
        image = model.get_image_features(pixel_values=pixels(frames))
        other = model.get_image_features(pixel_values=pixels(big), interpolate_pos_encoding=True)
        words = model.get_text_features(input_ids=torch.tensor(ids))
    found = {"image": vector(image), "big_image": vector(other), "text": vector(words)}
    np.savez(folder / "io.npz", pixels=frames, big=big, ids=ids, **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

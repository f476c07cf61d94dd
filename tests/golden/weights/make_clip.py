"""Write clip/: tiny CLIP models with random weights and what they give (transformers 5.24.0, torch 2.13.0).

Run once, elsewhere: `python make_clip.py clip`. The tests read the files only.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

MEAN = np.float32([0.48145466, 0.4578275, 0.40821073])
STD = np.float32([0.26862954, 0.26130258, 0.27577711])
MERGES = ["a n", "d o", "do g</w>", "r u", "ru n", "run s</w>"]
ENDS = ("<|startoftext|>", "<|endoftext|>")


def byte_characters():
    """Return the 256 characters that stand for bytes in a byte-level vocabulary, in its order."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in shown]
    return [chr(code) for code in [*shown, *(256 + i for i in range(len(others)))]]


def vocabulary():
    """Return token -> id."""
    single = byte_characters()
    words = [*single, *(one + "</w>" for one in single), *("".join(pair.split()) for pair in MERGES), *ENDS]
    return {word: number for number, word in enumerate(words)}


def randomised(model):
    """Move every parameter away from its initial value."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * (0.12 if value.ndim > 1 else 0.05))
    return model.eval()


def pixels(frames):
    """Return what the model sees of uint8 [B,H,W,3]."""
    return torch.tensor(((frames / 255).astype(np.float32) - MEAN) / STD).permute(0, 3, 1, 2)


def vector(output):
    """Return the embedding, whatever this version of the library wraps it in."""
    return (output if isinstance(output, torch.Tensor) else output.pooler_output).numpy()


def write(folder, *, activation, eos):
    """Write one model, its tokenizer's files and io.npz."""
    words = vocabulary()
    end = len(words) - 1
    torch.manual_seed(0)
    vision = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3}
    vision |= {"image_size": 32, "patch_size": 8, "hidden_act": activation}
    text = {"hidden_size": 20, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": len(words), "max_position_embeddings": 16, "hidden_act": activation}
    text |= {"eos_token_id": eos or end, "bos_token_id": end - 1, "pad_token_id": eos or end}
    model = randomised(CLIPModel(CLIPConfig(projection_dim=12, vision_config=vision, text_config=text)))
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    about = {"tokenizer_class": "CLIPTokenizer", "pad_token": ENDS[1], "unk_token": ENDS[1], "model_max_length": 16}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    shown = {"image_mean": MEAN.tolist(), "image_std": STD.tolist(), "size": {"shortest_edge": 32}, "crop_size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps({**shown, "resample": 3}))
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    big = rng.integers(0, 256, (2, 48, 40, 3), dtype=np.uint8)
    ids = np.full((3, 16), end, np.int64)
    ids[:, 0] = end - 1
    for row, length in enumerate((4, 9, 14)):
        ids[row, 1 : 1 + length] = rng.integers(0, end - 1, length)
    with torch.no_grad():
        image = model.get_image_features(pixel_values=pixels(frames))
        other = model.get_image_features(pixel_values=pixels(big), interpolate_pos_encoding=True)
        text = model.get_text_features(input_ids=torch.tensor(ids))
    found = {"image": vector(image), "big_image": vector(other), "text": vector(text)}
    np.savez(folder / "io.npz", pixels=frames, big=big, ids=ids, **found)


if __name__ == "__main__":
    write(Path(sys.argv[1]) / "quick", activation="quick_gelu", eos=2)  # eos 2: an old config, which means largest id
    write(Path(sys.argv[1]) / "exact", activation="gelu", eos=0)

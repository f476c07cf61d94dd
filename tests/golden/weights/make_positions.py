"""Write positions.npz: vectors of public models at another picture size than theirs, and tables that they resized.

Usage: python make_positions.py FILE, with transformers 5.24.0, open_clip 3.3.0 and torch 2.14.1; weights are those
of the folders beside this script. Nothing in the tests runs it.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from open_clip.model import resize_pos_embed, resize_text_pos_embed
from safetensors.torch import load_file

HERE = Path(__file__).parent
OWN = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
MODELS = {"clip/quick": OWN, "siglip": HALF, "vit": IMAGENET, "dinov2": IMAGENET, "dinov2_giant_form": IMAGENET}
"""Of transformers, whose pictures have 32 pixels and 4 x 4 patches."""

torch.set_grad_enabled(False)
rng = np.random.default_rng(0)
arrays = {}
for side in (24, 48):
    arrays[f"pixels_{side}"] = pixels = rng.integers(0, 256, (2, side, side, 3), np.uint8)
    for name, kind in MODELS.items():
        model = transformers.AutoModel.from_pretrained(HERE / name).eval()
        x = (pixels / 255 - np.array(kind["mean"])) / np.array(kind["std"])
        x = torch.tensor(x, dtype=torch.float32).permute(0, 3, 1, 2)
        body = getattr(model, "vision_model", model)
        known = {} if name.startswith("dinov2") else {"interpolate_pos_encoding": True}
        found = body(x, **known)
        vector = found.last_hidden_state[:, 0] if hasattr(body, "embeddings") and name in ("vit",) else None
        if name == "clip/quick":
            vector = model.visual_projection(found.pooler_output)
        elif vector is None:
            vector = found.pooler_output if name == "siglip" else found.last_hidden_state[:, 0]
        arrays[f"{name}_{side}"] = vector.numpy()

tensors = load_file(HERE / "open_clip/native/open_clip_model.safetensors")
for side in (3, 6):
    state = {"visual.positional_embedding": tensors["visual.positional_embedding"]}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=side)))
    arrays[f"open_clip_table_{side}"] = state["visual.positional_embedding"].numpy()
for length in (8, 20):
    state = {"positional_embedding": tensors["positional_embedding"]}
    wanted = torch.zeros(length, tensors["positional_embedding"].shape[1])
    resize_text_pos_embed(state, SimpleNamespace(positional_embedding=wanted))
    arrays[f"open_clip_text_{length}"] = state["positional_embedding"].numpy()
# AST (YuanGongND/ast, src/models/ast_models.py): as its model builds them for another number of frames.
table = load_file(HERE / "ast/model.safetensors")["audio_spectrogram_transformer.embeddings.position_embeddings"]
bands = 5  # (16 - 4) // 3 + 1 mel patches
grid = table[:, 2:].transpose(1, 2).reshape(1, -1, bands, (table.shape[1] - 2) // bands)
old = grid.shape[3]
arrays["ast_grid"] = np.array(grid.shape)
for times in (old - 4, old + 5):
    cut = grid[..., old // 2 - times // 2 : old // 2 - times // 2 + times]
    new = cut if times <= old else torch.nn.functional.interpolate(grid, size=(bands, times), mode="bilinear")
    arrays[f"ast_{times - old}"] = new.flatten(2)[0].T.numpy()
np.savez_compressed(sys.argv[1], **arrays)
print({key: value.shape for key, value in arrays.items()})

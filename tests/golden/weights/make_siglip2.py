"""Write siglip2/: a tiny SigLIP 2 of NaFlex form and what it gives (transformers 5.24.0, torch 2.13.0).

Run once, elsewhere: `python make_siglip2.py siglip2`. The tests read the files only.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from make_clip import randomised, vector
from transformers import Siglip2Config, Siglip2Model

PATCH = 8


def image_of(model, frames):
    """Return the embeddings of uint8 frames [B,H,W,3], given to the model as it wants them: as flat patches."""
    count, height, width = frames.shape[:3]
    rows, columns = height // PATCH, width // PATCH
    pixels = ((frames / 255).astype(np.float32) - 0.5) / 0.5
    patches = pixels.reshape(count, rows, PATCH, columns, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    return model.get_image_features(
        pixel_values=torch.tensor(patches.reshape(count, rows * columns, -1)),
        pixel_attention_mask=torch.ones(count, rows * columns, dtype=torch.long),
        spatial_shapes=torch.tensor([[rows, columns]] * count),
    )


def main(folder):
    """Write the model and io.npz."""
    torch.manual_seed(0)
    vision = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
    text = {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"num_patches": 16, "patch_size": PATCH}
    text |= {"vocab_size": 60, "max_position_embeddings": 12, "projection_size": 24}
    model = randomised(Siglip2Model(Siglip2Config(vision_config=vision, text_config=text)))
    model.save_pretrained(folder)
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    others = {"wide": (16, 40), "large": (48, 40), "small": (24, 24)}
    found = {"pixels": frames, "ids": rng.integers(2, 59, (3, 12))}
    with torch.no_grad():
        found["image"] = vector(image_of(model, frames))
        for name, (height, width) in others.items():
            found[name] = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
            found[f"{name}_image"] = vector(image_of(model, found[name]))
        found["text"] = vector(model.get_text_features(input_ids=torch.tensor(found["ids"])))
    np.savez(folder / "io.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Writes `videoprism/hf_encoder`: a tiny random video encoder by transformers 5.24.0 (torch 2.13.0).

python make_videoprism.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import VideoPrismVisionConfig, VideoPrismVisionModel

torch.manual_seed(0)
folder = Path(sys.argv[1])
config = VideoPrismVisionConfig(
    image_size=12,
    num_frames=3,
    tubelet_size=[1, 4, 4],
    hidden_size=24,
    num_attention_heads=3,
    intermediate_size=40,
    num_spatial_layers=1,
    num_temporal_layers=2,
)
model = VideoPrismVisionModel(config).eval()
with torch.no_grad():
    for name, parameter in model.named_parameters():
        spread = 0.5 if "position" in name else 0.2
        parameter.copy_(spread * torch.randn_like(parameter))
model.save_pretrained(folder)

rng = np.random.default_rng(0)
clips = {
    "": rng.integers(0, 256, (2, 3, 12, 12, 3), np.uint8),
    "smaller_": rng.integers(0, 256, (2, 2, 8, 8, 3), np.uint8),
    "larger_": rng.integers(0, 256, (1, 5, 16, 16, 3), np.uint8),
}
arrays = {}
for name, frames in clips.items():
    pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255
    with torch.no_grad():
        tokens = model(pixels, interpolate_pos_encoding=bool(name)).last_hidden_state
    arrays |= {f"{name}frames": frames, f"{name}embeddings": tokens.numpy()}
np.savez_compressed(folder / "io.npz", **arrays)

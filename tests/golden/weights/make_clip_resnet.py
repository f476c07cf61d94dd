"""Write open_clip/resnet/: a tiny CLIP with a ResNet, and what it gives (open_clip 3.3.0, torch 2.13.0).

Run once, elsewhere: `python make_clip_resnet.py open_clip`. The tests read the files only.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from make_clip import MEAN, STD
from make_open_clip import LENGTH, TEXT, VOCABULARY
from make_timm_clip import randomised, seen
from open_clip.model import CLIP
from safetensors.torch import save_file

VISION = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 4, "head_width": 32, "patch_size": None}


def main(folder):
    """Write the model and io.npz."""
    torch.manual_seed(0)
    kind = {"embed_dim": 12, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True}
    model = randomised(CLIP(**kind))
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    shown = {"mean": MEAN.tolist(), "std": STD.tolist(), "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": kind, "preprocess_cfg": shown}))
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    ids = rng.integers(1, VOCABULARY - 2, (3, LENGTH))
    ids[:, -1] = VOCABULARY - 1
    with torch.no_grad():
        image = model.encode_image(seen(frames, mean=MEAN, std=STD)).numpy()
        text = model.encode_text(torch.tensor(ids)).numpy()
    np.savez(folder / "io.npz", pixels=frames, ids=ids, image=image, text=text)


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "resnet")

"""Write frozen/: a tiny Frozen in Time and what its own code gives; and what it makes of the film of processors/.

Run with torch 2.14.1, timm 1.0.31, torchvision 0.29.1 and transformers 5.24.0 (not with twinreel's own environment):
`python make_frozen.py CLONE FRAMES` beside `processors/`. CLONE is m-bain/frozen-in-time at 4ca18e3, whose import of
`timm.models.layers` becomes `timm.layers`; of it, `model/video_transformer.py` runs. FRAMES is of `make_processors.py`.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from safetensors.torch import save_file
from torchvision import transforms

sys.path.insert(0, sys.argv[1])
from model.video_transformer import SpaceTimeTransformer

HERE = Path(__file__).parent
OUT = HERE / "frozen"
T, SIDE, E = 4, 28, 10
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "dog",
    "jumps",
    "over",
    "the",
    "red",
    "ball",
    "##s",
    ",",
    ".",
]
TEXTS = ["a dog jumps", "The red balls, over the DOG.", "a cat"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def randomised(model, *, seed):
    """Give every parameter a value that matters."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 else 0.15))
    return model.eval()


def tokenizer():
    (OUT / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    made = hf.BertTokenizer.from_pretrained(OUT, do_lower_case=True)
    about = {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True, "model_max_length": 16}
    (OUT / "tokenizer_config.json").write_text(json.dumps(about))
    return made


def middles(n):
    edges = np.linspace(0, n, min(T, n) + 1).astype(int)
    return [(a + b - 1) // 2 for a, b in itertools.pairwise(edges)]


def main():
    torch.set_grad_enabled(False)
    OUT.mkdir(exist_ok=True)
    video = SpaceTimeTransformer(
        img_size=SIDE, patch_size=7, num_classes=0, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, num_frames=T
    )
    config = hf.DistilBertConfig(
        vocab_size=len(WORDS), dim=24, n_layers=2, n_heads=4, hidden_dim=40, max_position_embeddings=16
    )
    text = randomised(hf.DistilBertModel(config), seed=2)
    video = randomised(video, seed=1)
    to_video = randomised(torch.nn.Sequential(torch.nn.Linear(24, E)), seed=3)
    to_text = randomised(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(24, E)), seed=4)
    parts = {"video_model": video, "text_model": text, "vid_proj": to_video, "txt_proj": to_text}
    state = {f"module.{n}.{k}": v.clone() for n, part in parts.items() for k, v in part.state_dict().items()}
    save_file(state, OUT / "model.safetensors")
    (OUT / "twinreel_config.json").write_text(json.dumps({"heads": 3, "text_heads": 4}))

    normalise = transforms.Normalize(MEAN, STD)
    clips = np.random.default_rng(0).integers(0, 256, (2, T, SIDE, SIDE, 3), dtype=np.uint8)

    def embed(frames):
        return to_video(video(normalise(torch.tensor(frames).permute(0, 1, 4, 2, 3).float() / 255)))

    words = tokenizer()(TEXTS, return_tensors="pt", padding=True, truncation=True)
    ids, mask = words["input_ids"], words["attention_mask"]
    kept = {"pixels": clips, "video": embed(clips), "two": embed(clips[:, :2]), "picture": embed(clips[:, :1])}
    kept |= {"ids": ids.int(), "mask": mask.bool(), "texts": np.array(TEXTS)}
    kept["text"] = to_text(text(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0])
    np.savez_compressed(OUT / "io.npz", **{key: np.asarray(value) for key, value in kept.items()})

    film = np.load(sys.argv[2])["frames"]
    larger = round(SIDE * 256 / 224)
    steps = [transforms.Resize(larger), transforms.CenterCrop(larger), transforms.Resize(SIDE)]
    x = torch.tensor(film[middles(len(film))]).permute(0, 3, 1, 2).float() / 255
    x = transforms.Compose(steps)(x)
    made = {"pixels": (255 * x.permute(0, 2, 3, 1)).numpy(), "vector": to_video(video(normalise(x)[None]))[0].numpy()}
    np.savez_compressed(HERE / "processors" / "frozen.npz", **made)


main()

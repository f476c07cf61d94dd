"""The public side of `twinreel bench compare_towers`: models of transformers and open_clip with random weights.

The file imports nothing of twinreel: another Python, which has torch and not twinreel, runs it by its path. It writes a
model's folder as its library does, with the inputs and outputs of each tower in io.npz, prints its facts as one line of
JSON, then runs a tower for each line of standard input (`video forward`, `text train`) and prints wall and CPU seconds.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TINY = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
SO400M = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304}
TEXT_B = {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "intermediate_size": 2048}


class Case:
    """A public model, and what goes into its towers.

    Attributes:
      model: of torch.
      towers: "video" or "text" -> function of the inputs below that gives [B,D], gradients included.
      inputs: uint8 `video` [B,T,H,W,3]; int64 `text` [B,L].
      processor: of preprocessor_config.json, None = the model has none.
    """

    def __init__(self, model: Any, *, towers: dict[str, Callable], inputs: dict[str, Any], processor: dict | None):
        self.model, self.towers, self.inputs, self.processor = model, towers, inputs, processor


def clip(*, vision: dict, text: dict, patch: int, embed: int, size: int, rows: int, frames: int) -> Case:
    """CLIP of transformers."""
    import transformers  # pyright: ignore[reportMissingImports]

    words = text | {"vocab_size": 49_408, "max_position_embeddings": 77, "eos_token_id": 49_407}
    config = transformers.CLIPConfig(
        vision_config=vision | {"image_size": size, "patch_size": patch}, text_config=words, projection_dim=embed
    )
    ends = {"eos": 49_407, "vocabulary": 49_406, "length": 77}
    return _pair(
        transformers.CLIPModel(config), size=size, rows=rows, frames=frames, pixels=(CLIP_MEAN, CLIP_STD), **ends
    )


def siglip(*, vision: dict, text: dict, patch: int, size: int, rows: int, frames: int) -> Case:
    """SigLIP of transformers."""
    import transformers  # pyright: ignore[reportMissingImports]

    words = text | {"vocab_size": 32_000, "max_position_embeddings": 64, "projection_size": text["hidden_size"]}
    config = transformers.SiglipConfig(
        vision_config=vision | {"image_size": size, "patch_size": patch}, text_config=words
    )
    ends = {"eos": 1, "vocabulary": 32_000, "length": 64}
    return _pair(transformers.SiglipModel(config), size=size, rows=rows, frames=frames, pixels=(HALF, HALF), **ends)


def images(name: str, *, sizes: dict, patch: int, size: int, rows: int, frames: int) -> Case:
    """ViT or DINOv2 of transformers; the mean over frames of the class tokens."""
    import transformers  # pyright: ignore[reportMissingImports]

    own = sizes | {"image_size": size, "patch_size": patch}
    if name == "dinov2":
        own["mlp_ratio"] = own.pop("intermediate_size") // own["hidden_size"]
    kinds = {"vit": ("ViTConfig", "ViTModel"), "dinov2": ("Dinov2Config", "Dinov2Model")}
    config, model = (getattr(transformers, kind) for kind in kinds[name])
    made = model(config(**own))
    video = lambda given: _mean(made(pixel_values=_flat(given, MEAN, STD)).last_hidden_state[:, 0], frames)  # noqa: E731
    return Case(made, towers={"video": video}, inputs=_video(rows, frames, size), processor=_processor(MEAN, STD, size))


def films(name: str, *, sizes: dict, patch: int, size: int, rows: int, frames: int) -> Case:
    """VideoMAE, ViViT or TimeSformer of transformers."""
    import transformers  # pyright: ignore[reportMissingImports]

    own = sizes | {"image_size": size, "num_frames": frames}
    if name == "vivit":
        made = transformers.VivitModel(transformers.VivitConfig(**own, tubelet_size=[2, patch, patch]))
    elif name == "videomae":
        config = transformers.VideoMAEConfig(**own, patch_size=patch, tubelet_size=2)
        made = transformers.VideoMAEForVideoClassification(config)
    else:
        made = transformers.TimesformerModel(transformers.TimesformerConfig(**own, patch_size=patch))
    mean, std = (HALF, HALF) if name == "vivit" else (MEAN, STD)

    def video(given: dict) -> Any:
        x = _pixels(given, mean, std)
        if name != "videomae":
            return made(x).last_hidden_state[:, 0]
        return made.fc_norm(made.videomae(x).last_hidden_state.mean(1))

    return Case(made, towers={"video": video}, inputs=_video(rows, frames, size), processor=_processor(mean, std, size))


def bert(*, sizes: dict, rows: int, **_: Any) -> Case:
    """BERT of transformers, with its pooler."""
    import numpy as np
    import transformers  # pyright: ignore[reportMissingImports]

    made = transformers.BertModel(transformers.BertConfig(**sizes))
    text = np.random.default_rng(0).integers(1000, 30_000, (rows, 128))
    towers = {"text": lambda given: made(input_ids=given["text"]).pooler_output}
    return Case(made, towers=towers, inputs={"text": text}, processor=None)


def videoprism(*, sizes: dict, rows: int, frames: int, size: int, temporal: int, auxiliary: int) -> Case:
    """VideoPrism-LvT of transformers."""
    import numpy as np
    import transformers  # pyright: ignore[reportMissingImports]

    layers = {"num_attention_heads": sizes["num_attention_heads"], "intermediate_size": sizes["intermediate_size"]}
    layers["hidden_size"] = sizes["hidden_size"]
    vision = layers | {"num_frames": frames, "image_size": size, "tubelet_size": [1, 18, 18]}
    vision |= {"num_spatial_layers": sizes["num_hidden_layers"], "num_temporal_layers": temporal}
    vision |= {"num_auxiliary_layers": auxiliary}
    words = layers | {"num_hidden_layers": sizes["num_hidden_layers"], "vocab_size": 32_000}
    made = transformers.VideoPrismClipModel(transformers.VideoPrismConfig(vision_config=vision, text_config=words))
    text = np.random.default_rng(0).integers(2, 32_000, (rows, 64))
    towers = {
        "video": lambda given: _vector(made.get_video_features(_pixels(given, (0, 0, 0), (1, 1, 1)))).flatten(1),
        "text": lambda given: _vector(
            made.get_text_features(given["text"], attention_mask=given["text"].new_ones(rows, 64))
        ),
    }  # without a mask transformers' text tower is not causal
    return Case(made, towers=towers, inputs=_video(rows, frames, size) | {"text": text}, processor=None)


CASES: dict[str, Callable[..., Case]] = {
    "clip-tiny": lambda **k: clip(vision=TINY, text=TINY, patch=16, embed=24, size=32, **k),
    "clip-b32": lambda **k: clip(vision=BASE, text=TEXT_B, patch=32, embed=512, size=224, **k),
    "clip-l14": lambda **k: clip(vision=LARGE, text=BASE, patch=14, embed=768, size=224, **k),
    "siglip-tiny": lambda **k: siglip(vision=TINY, text=TINY, patch=16, size=32, **k),
    "siglip-b16": lambda **k: siglip(vision=BASE, text=BASE, patch=16, size=224, **k),
    "siglip-so400m": lambda **k: siglip(vision=SO400M, text=SO400M, patch=14, size=224, **k),
    "videoprism-lvt-b": lambda **k: videoprism(sizes=BASE, temporal=4, auxiliary=2, size=288, **k),
    "bert-tiny": lambda **k: bert(sizes=TINY, **k),
    "bert-base": lambda **k: bert(sizes=BASE, **k),
    "vit-b16": lambda **k: images("vit", sizes=BASE, patch=16, size=224, **k),
    "dinov2-s14": lambda **k: images("dinov2", sizes=SMALL, patch=14, size=224, **k),
    "videomae-b16": lambda **k: films("videomae", sizes=BASE, patch=16, size=224, **k),
    "vivit-b16": lambda **k: films("vivit", sizes=BASE, patch=16, size=224, **k),
    "timesformer-b16": lambda **k: films("timesformer", sizes=BASE, patch=16, size=224, **k),
}
"""Name -> function of rows and frames that builds it."""


def write(case: Case, *, folder: Path) -> None:
    """Write the folder as the library does, with inputs and outputs."""
    import numpy as np
    import torch  # pyright: ignore[reportMissingImports]

    case.model.save_pretrained(folder)
    if case.processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(case.processor))
    with torch.no_grad():
        outputs = {f"{side}_out": tower(_tensors(case)).float().numpy() for side, tower in case.towers.items()}
    np.savez(folder / "io.npz", **case.inputs, **outputs)


def serve(case: Case) -> None:
    """Run a tower for each line of standard input."""
    import torch  # pyright: ignore[reportMissingImports]

    given = _tensors(case)
    for line in sys.stdin:
        side, mode = line.split()
        begin, begin_cpu = time.perf_counter(), time.process_time()
        if mode == "forward":
            with torch.no_grad():
                case.towers[side](given)
        else:
            case.model.zero_grad(set_to_none=True)
            case.towers[side](given).square().sum().backward()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(time.perf_counter() - begin, time.process_time() - begin_cpu, peak, flush=True)


def _pair(
    model: Any, *, size: int, rows: int, frames: int, pixels: tuple, eos: int, vocabulary: int, length: int
) -> Case:
    import numpy as np

    text = np.random.default_rng(0).integers(2, vocabulary, (rows, length))
    text[:, -1] = eos
    towers = {
        "video": lambda given: _mean(_vector(model.get_image_features(_flat(given, *pixels))), frames),
        "text": lambda given: _vector(model.get_text_features(given["text"])),
    }
    return Case(
        model,
        towers=towers,
        inputs=_video(rows, frames, size) | {"text": text},
        processor=_processor(pixels[0], pixels[1], size),
    )


def _video(rows: int, frames: int, size: int) -> dict[str, Any]:
    import numpy as np

    return {"video": np.random.default_rng(1).integers(0, 256, (rows, frames, size, size, 3), dtype=np.uint8)}


def _processor(mean: tuple, std: tuple, size: int) -> dict[str, Any]:
    return {"image_mean": list(mean), "image_std": list(std), "size": {"height": size, "width": size}, "resample": 3}


def _pixels(given: dict, mean: tuple, std: tuple) -> Any:
    """What a model of films sees, float32 [B,T,3,H,W]."""
    import torch  # pyright: ignore[reportMissingImports]

    x = given["video"].permute(0, 1, 4, 2, 3).float() / 255
    shape = (1, 1, 3, 1, 1)
    return (x - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)


def _flat(given: dict, mean: tuple, std: tuple) -> Any:
    return _pixels(given, mean, std).flatten(0, 1).contiguous()


def _mean(x: Any, frames: int) -> Any:
    return x.unflatten(0, (-1, frames)).mean(1)


def _vector(output: Any) -> Any:
    """The embedding, whatever the library wraps it in."""
    for name in ("pooler_output", "video_embeds", "text_embeds"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    return output


def _tensors(case: Case) -> dict[str, Any]:
    import torch  # pyright: ignore[reportMissingImports]

    return {key: torch.from_numpy(value) for key, value in case.inputs.items()}


def main() -> int:
    """Run the side."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--frames", type=int, required=True)
    args = parser.parse_args()
    torch.manual_seed(0)
    case = CASES[args.case](rows=args.rows, frames=args.frames)
    case.model.eval()
    write(case, folder=args.folder)
    parameters = sum(p.numel() for p in case.model.parameters())
    what = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(json.dumps({"what": what, "parameters": parameters, "towers": list(case.towers)}), flush=True)
    serve(case)
    return 0


if __name__ == "__main__":
    sys.exit(main())

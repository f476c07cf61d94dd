"""Write processors/: what public processors and models make of one small film and one sound.

Two steps, run once; the tests read the files only:

    python make_processors.py film FOLDER            # with twinreel's own PyAV 18.1: clip.mp4 and its decoded frames
    python make_processors.py public FOLDER FRAMES   # with transformers 5.24.0, open_clip 3.3.0, torchvision 0.29.1,
                                                     # timm 1.0.31, torch 2.14.1: NAME.npz and NAME/*.json

For `s3d`, ffmpeg 5.1 and a folder on PYTHONPATH with s3dg.py of antoine77340/S3D_HowTo100M. Vectors of `s3d`, `pe_core`
and `open_clip_pe` are of torch 2.13.0 and torchvision 0.28.0. Names of cases after FRAMES make these alone. FOLDER is
the folder beside this script, FRAMES a place for the decoded frames between the steps. Weights are those of the
neighbouring folders.
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
HEIGHT, WIDTH, COUNT = 66, 98, 11
NAMES = ("image_processor", "video_processor")


def film():
    """Smooth colours with a texture that moves and a sharp edge, uint8 `[n,H,W,3]`."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    frames = []
    for n in range(COUNT):
        waves = [np.sin(x / (7 + c) + 0.5 * n + c) * np.cos(y / (9 - c) - 0.3 * n) for c in range(3)]
        frame = 127 + 90 * np.stack(waves, axis=-1) + 25 * ((x // 4 + y // 4 + n) % 2)[..., None]
        frame[10 + 2 * n : 26 + 2 * n, 60 - 4 * n : 80 - 4 * n] = (235, 40, 90)
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return frames


def uniform(n, t):
    return [int((i + 0.5) * n / t) for i in range(t)]


def middles(n, t):
    edges = np.linspace(0, n, t + 1).astype(int)
    return ((edges[:-1] + edges[1:] - 1) // 2).tolist()


def grey_levels(x, mean, std, *, scale=1.0):
    """Pixels `[T,3,H,W]` before normalisation, on the scale 0..255, float32 `[T,H,W,3]`."""
    x = np.asarray(x, np.float64).transpose(0, 2, 3, 1)
    return (255 * (x * np.asarray(std) + np.asarray(mean)) * scale).astype(np.float32)


def write_film(folder):
    sys.path.insert(0, str(HERE.parents[1] / "support"))
    from media_files import write_media

    sound = 9000 * np.sin(2 * np.pi * 300 * (1 + np.arange(22_000) / 22_000) * np.arange(22_000) / 16_000)
    sound = sound + 400 * np.random.default_rng(0).standard_normal(22_000)
    frames = film()
    path = write_media(folder / "clip.mp4", frames, sound=sound.astype(np.int16))
    import av

    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(str(path)) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return {"frames": frames, "sound": heard}


def write_public(folder, frames, sound):
    import torch

    torch.set_grad_enabled(False)
    for name, make in CASES.items():
        if len(sys.argv) > 4 and name not in sys.argv[4:]:
            continue
        arrays, processors = make(sound if name in SOUNDS else frames)
        np.savez_compressed(folder / f"{name}.npz", **{key: np.asarray(value) for key, value in arrays.items()})
        for number, processor in enumerate(processors):
            where = folder / (name if not number else f"{name}_{number}")
            processor.save_pretrained(where)
            for other in where.iterdir():
                if "config" not in other.name or "tokenizer" in other.name:
                    other.unlink()
        print(name, {key: np.shape(value) for key, value in arrays.items()})


def images(weights, kind, *, frames_of=8, vector, mean, std, **settings):
    """A case of an image model: the torchvision and the Pillow form of its processor, and the mean vector."""

    def make(frames):
        import torch
        import transformers

        drawn = [frames[i] for i in uniform(len(frames), frames_of)]
        fast = getattr(transformers, kind)(**settings)
        slow = getattr(transformers, f"{kind}Pil")(**settings)
        x = fast(list(drawn), return_tensors="pt")["pixel_values"]
        y = slow(list(drawn), return_tensors="np")["pixel_values"]
        model = transformers.AutoModel.from_pretrained(HERE / weights).eval()
        arrays = {"pixels": grey_levels(x, mean, std), "pillow": grey_levels(y, mean, std)}
        arrays |= {"vector": vector(model, x).mean(0), "pillow_vector": vector(model, torch.tensor(y)).mean(0)}
        return arrays, [fast]

    return make


def videos(weights, old, new, *, model, times, vector, mean, std, scale=1.0, **settings):
    """A case of a video model: its video processor, and its old image processor if there is one."""

    def make(frames):
        import torch
        import transformers

        drawn = frames[uniform(len(frames), times)]
        fast = getattr(transformers, new)(**settings)
        x = fast([torch.tensor(drawn).permute(0, 3, 1, 2)], return_tensors="pt")["pixel_values"]
        net = getattr(transformers, model).from_pretrained(HERE / weights).eval()
        arrays = {"pixels": grey_levels(x[0], mean, std, scale=scale), "vector": vector(net, x)[0]}
        processors = [fast]
        if old:
            slow = getattr(transformers, old)(**settings)
            y = np.asarray(slow(list(drawn), return_tensors="np")["pixel_values"])
            arrays["pillow"] = grey_levels(y[0], mean, std, scale=scale)
            arrays["pillow_vector"] = vector(net, torch.tensor(y, dtype=torch.float32))[0]
            processors.append(slow)
        return arrays, processors

    return make


def features(method):
    def vector(model, x):
        found = getattr(model, method)(pixel_values=x)
        return found if not hasattr(found, "pooler_output") else found.pooler_output

    return vector


def first_token(model, x):
    return model(pixel_values=x).last_hidden_state[:, 0]


def pooled(model, x):
    return model(pixel_values=x).pooler_output.flatten(1)


def before_classifier(model, x):
    kept = []
    hook = model.classifier.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    model(pixel_values=x)
    hook.remove()
    return kept[0]


def naflex(frames):
    """Three aspect ratios: the film, its transpose, and a strip of it."""
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(HERE / "siglip2").eval()
    processor = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    arrays = {}
    for name, film in {"wide": frames, "tall": frames.transpose(0, 2, 1, 3), "strip": frames[:, :18]}.items():
        x = processor([film[i] for i in uniform(len(frames), 8)], return_tensors="pt")
        found = model.get_image_features(**x)
        vectors = found if not hasattr(found, "pooler_output") else found.pooler_output
        arrays[f"{name}_patches"] = (255 * (x["pixel_values"] / 2 + 0.5)).numpy().astype(np.float32)
        arrays[f"{name}_shape"] = x["spatial_shapes"][0].numpy()
        arrays[f"{name}_vector"] = vectors.mean(0).numpy()
    del torch
    return arrays, [processor]


def big_vision(frames):
    """`resize(n)|value_range(-1, 1)` of big_vision: bilinear without antialiasing, then cut to whole levels."""
    import torch
    import transformers

    x = torch.tensor(frames[uniform(len(frames), 8)]).permute(0, 3, 1, 2).float()
    x = torch.nn.functional.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False, antialias=False)
    x = x.clip(0, 255).floor()
    model = transformers.AutoModel.from_pretrained(HERE / "siglip").eval()  # the same weights
    vector = features("get_image_features")(model, x / 127.5 - 1).mean(0)
    return {"pixels": x.permute(0, 2, 3, 1).numpy().astype(np.uint8), "vector": vector}, []


PE_TRUNK = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
PE_TRUNK |= {"ref_feat_shape": (4, 4), "attn_pool_num_heads": 4}


def pe_core(frames):
    """`get_image_transform` of perception_models: Pillow's bilinear to a square; frames of its evaluation.

    The vector is timm's, whose reading of the weights is checked by the outputs of perception_models; the mean of the
    frames' vectors, as there.
    """
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file
    from timm.models.eva import checkpoint_filter_fn
    from torchvision import transforms

    squash = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])
    x = torch.stack([squash(Image.fromarray(frames[int(i * (len(frames) - 1) / 7)])) for i in range(8)])
    model = timm.create_model("vit_pe_core_base_patch16_224", num_classes=24, **PE_TRUNK).eval()
    tensors = load_file(HERE / "pe_core/cls/model.safetensors")
    model.load_state_dict(checkpoint_filter_fn(tensors, model))
    given = np.load(HERE / "pe_core/cls/io.npz")
    seen = torch.tensor(given["frames"][0]).permute(0, 3, 1, 2) / 127.5 - 1
    assert np.allclose(model(seen), given["image_embeddings_of_frames"][0], atol=1e-5)
    pixels = (255 * x).round().permute(0, 2, 3, 1).numpy().astype(np.uint8)
    return {"pixels": pixels, "vector": model(2 * x - 1).mean(0)}, []


def s3d(frames):
    """Crop and `scale` of the loader of antoine77340/MIL-NCE_HowTo100M by ffmpeg, and the published network."""
    import subprocess

    import s3dg
    import torch
    from safetensors.torch import load_file

    filters = "crop=min(iw\\,ih):min(iw\\,ih):(iw-min(iw\\,ih))*0.5:(ih-min(iw\\,ih))*0.5,scale=224:224"
    source = str(HERE / "processors/clip.mp4")
    command = ["ffmpeg", "-v", "error", "-i", source, "-vf", filters, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    made = subprocess.run(command, check=True, capture_output=True).stdout
    film = np.frombuffer(made, np.uint8).reshape(-1, 224, 224, 3)
    assert len(film) == len(frames)
    drawn = film[uniform(len(film), 32)]
    tensors = load_file(HERE / "s3d/model.safetensors")
    model = s3d_of(s3dg, tensors)
    model.load_state_dict(tensors, strict=False)  # words have no part in this
    model.eval()
    given = np.load(HERE / "s3d/io.npz")
    seen = torch.tensor(given["frames"]).permute(0, 4, 1, 2, 3) / 255
    assert np.allclose(model(seen)["video_embedding"], given["video_embedding"], rtol=1e-4, atol=1e-4)
    vector = model(torch.tensor(drawn[None]).permute(0, 4, 1, 2, 3) / 255)["video_embedding"][0]
    return {"pixels": drawn[[15]], "places": np.array([15]), "vector": vector}, []


def s3d_of(s3dg, tensors):
    """The published network with the widths of these tensors."""
    import torch

    def width(name, axis=0):
        return tensors[name].shape[axis]

    model = s3dg.S3D(str(HERE / "s3d/s3d_dict.npy"))
    stem = [width(f"{name}.conv1.weight") for name in ("conv1", "conv_2b", "conv_2c")]
    model.conv1 = s3dg.STConv3D(24, stem[0], [2, 4, 4], stride=1, padding=(1, 2, 2))
    model.conv_2b = s3dg.STConv3D(stem[0], stem[1], [1, 1, 1])
    model.conv_2c = s3dg.STConv3D(stem[1], stem[2], [3, 3, 3], padding=1, separable=True)
    model.gating = s3dg.SelfGating(stem[2])
    for block in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"):
        parts = [f"mixed_{block}.conv_{part}.conv1.weight" for part in ("b0", "b1_a", "b1_b", "b2_a", "b2_b", "b3_b")]
        setattr(model, f"mixed_{block}", s3dg.InceptionBlock(width(parts[0], 1), *map(width, parts)))
    model.fc = torch.nn.Linear(width("fc.weight", 1), width("fc.weight"))
    return model


def open_clip_native(frames):
    import open_clip
    import torch
    from PIL import Image

    folder = HERE / "open_clip/native"
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    x = torch.stack([transform(Image.fromarray(frames[i])) for i in uniform(len(frames), 8)])
    given = json.loads((folder / "open_clip_config.json").read_text())["preprocess_cfg"]
    vector = model.eval().encode_image(x).mean(0)
    return {"pixels": grey_levels(x, given["mean"], given["std"]), "vector": vector}, []


def open_clip_other(name):
    def make(frames):
        import open_clip
        import torch
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from PIL import Image

        given = json.loads((HERE / name / "open_clip_config.json").read_text())
        own = given["preprocess_cfg"]
        mean, std = own.get("mean", [0.5] * 3), own.get("std", [0.5] * 3)
        size = given["model_cfg"]["vision_cfg"]["image_size"]
        cfg = PreprocessCfg(**(own | {"size": size, "mean": mean, "std": std}))
        transform = image_transform_v2(cfg, is_train=False)
        x = torch.stack([transform(Image.fromarray(frames[i])) for i in uniform(len(frames), 8)])
        del open_clip
        return {"pixels": grey_levels(x, mean, std)}, []

    return make


def open_clip_pe(frames):
    """The transform and the model of open_clip, whose trunk timm makes smaller than its name says."""
    import open_clip.timm_model
    import torch
    from open_clip.model import CustomTextCLIP
    from safetensors.torch import load_file

    arrays, processors = open_clip_other("open_clip/pe_core")(frames)
    given = json.loads((HERE / "open_clip/pe_core/open_clip_config.json").read_text())["model_cfg"]
    create = open_clip.timm_model.timm.create_model
    open_clip.timm_model.timm.create_model = lambda name, **more: create(name, **more, **PE_TRUNK)
    vision = {key: value for key, value in given["vision_cfg"].items() if key != "timm_model_kwargs"}
    model = CustomTextCLIP(embed_dim=given["embed_dim"], vision_cfg=vision, text_cfg=given["text_cfg"]).eval()
    open_clip.timm_model.timm.create_model = create
    model.load_state_dict(load_file(HERE / "open_clip/pe_core/open_clip_model.safetensors"))
    x = torch.tensor(arrays["pixels"]).permute(0, 3, 1, 2) / 127.5 - 1
    return arrays | {"vector": model.encode_image(x).mean(0)}, processors


def timm_resnet(frames):
    import timm
    import torch
    from PIL import Image

    given = json.loads((HERE / "resnet/timm/config.json").read_text())["pretrained_cfg"]
    keys = {"input_size": tuple(given["input_size"]), "mean": given["mean"], "std": given["std"]}
    keys |= {"interpolation": given["interpolation"], "crop_pct": given["crop_pct"], "crop_mode": "center"}
    transform = timm.data.create_transform(**keys, is_training=False)
    x = torch.stack([transform(Image.fromarray(frames[i])) for i in uniform(len(frames), 8)])
    return {"pixels": grey_levels(x, given["mean"], given["std"])}, []


def r2plus1d(frames):
    import torch
    from torchvision.models.video import R2Plus1D_18_Weights

    preset = R2Plus1D_18_Weights.KINETICS400_V1.transforms()
    x = preset(torch.tensor(frames[uniform(len(frames), 16)][:, :, :, :]).permute(0, 3, 1, 2))  # [C,T,H,W]
    levels = grey_levels(x.permute(1, 0, 2, 3), preset.mean, preset.std)
    return {"pixels": levels[[0, 7, 15]].round().astype(np.uint8), "places": np.array([0, 7, 15])}, []


def videoprism(frames):
    import torch
    import transformers

    processor = transformers.LlavaOnevisionVideoProcessor(size={"height": 16, "width": 16}, do_normalize=False)
    film = torch.tensor(frames).permute(0, 3, 1, 2)
    about = {"total_num_frames": len(frames), "fps": 8, "duration": len(frames) / 8}
    keys = {"do_sample_frames": True, "num_frames": 4, "video_metadata": [about], "return_tensors": "pt"}
    x = processor([film], **keys)["pixel_values_videos"]
    model = transformers.VideoPrismClipModel.from_pretrained(HERE / "videoprism/hf_lvt").eval()
    found = model.get_video_features(pixel_values_videos=x)
    vector = found if not hasattr(found, "pooler_output") else found.pooler_output
    return {"pixels": grey_levels(x[0], [0.0] * 3, [1.0] * 3), "vector": vector[0]}, [processor]


def internvideo2(frames):
    import torch
    from torchvision.transforms import InterpolationMode, Resize

    x = torch.tensor(frames[middles(len(frames), 4)]).permute(0, 3, 1, 2)
    x = Resize((28, 28), interpolation=InterpolationMode.BICUBIC)(x)
    return {"pixels": x.permute(0, 2, 3, 1).numpy()}, []


def ast(sound):
    """The middle of the sound, as long as the model's input, which a file of that length alone would be."""
    import transformers

    count = 400 + 39 * 160
    start = (len(sound) - count) // 2
    processor = transformers.ASTFeatureExtractor(max_length=40, num_mel_bins=16, mean=-4.0, std=4.5)
    x = processor(sound[start : start + count], sampling_rate=16_000, return_tensors="pt")["input_values"]
    model = transformers.ASTModel.from_pretrained(HERE / "ast").eval()
    return {"features": x[0], "vector": model(x).last_hidden_state[0, :2].mean(0)}, [processor]


def wav2vec2(sound):
    import transformers

    processor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    x = processor(sound, sampling_rate=16_000, return_tensors="pt")["input_values"]
    model = transformers.Wav2Vec2Model.from_pretrained(HERE / "wav2vec2/large").eval()
    return {"vector": model(x).last_hidden_state[0].mean(0)}, [processor]


SOUNDS = ("ast", "wav2vec2")
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
OWN = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
SHORT = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
VIVIT = {"size": {"shortest_edge": 18}, "crop_size": {"height": 16, "width": 16}}


def stated(given):
    return {f"image_{key}": list(value) for key, value in given.items()}


CASES = {
    "clip": images(
        *("clip/quick", "CLIPImageProcessor"),
        **OWN,
        vector=features("get_image_features"),
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
    ),
    "siglip": images(
        *("siglip", "SiglipImageProcessor"),
        **HALF,
        vector=features("get_image_features"),
        size={"height": 32, "width": 32},
    ),
    "siglip2": naflex,
    "vit": images("vit", "ViTImageProcessor", **HALF, vector=first_token, size={"height": 32, "width": 32}),
    "dinov2": images(
        *("dinov2", "BitImageProcessor"),
        **IMAGENET,
        **stated(IMAGENET),
        vector=first_token,
        size={"shortest_edge": 36},
        crop_size={"height": 24, "width": 24},
    ),
    "resnet": images(
        "resnet/hf", "ConvNextImageProcessor", **IMAGENET, **stated(IMAGENET), vector=pooled, size={"shortest_edge": 40}
    ),
    "videomae": videos(
        *("videomae/finetuned", "VideoMAEImageProcessor", "VideoMAEVideoProcessor"),
        **HALF,
        model="VideoMAEForVideoClassification",
        times=4,
        vector=before_classifier,
        **SHORT,
    ),
    "timesformer": videos(
        *("timesformer/bare", "", "TimesformerVideoProcessor"),
        **IMAGENET,
        model="TimesformerModel",
        times=4,
        vector=first_token,
        **SHORT,
    ),
    "vivit": videos(
        *("vivit/bare", "VivitImageProcessor", "VivitVideoProcessor"),
        mean=(1.5,) * 3,
        std=(0.5,) * 3,
        scale=0.5,
        model="VivitModel",
        times=4,
        vector=first_token,
        **VIVIT,
    ),
    "open_clip": open_clip_native,
    "open_clip_pe": open_clip_pe,
    "pe_core": pe_core,
    "s3d": s3d,
    "big_vision": big_vision,
    "open_clip_siglip": open_clip_other("open_clip/siglip_exact"),
    "mobileclip": open_clip_other("open_clip/mobileclip_s0"),
    "timm": timm_resnet,
    "r2plus1d": r2plus1d,
    "videoprism": videoprism,
    "internvideo2": internvideo2,
    "ast": ast,
    "wav2vec2": wav2vec2,
}

if __name__ == "__main__":
    step, target = sys.argv[1], Path(sys.argv[2])
    if step == "film":
        np.savez_compressed(sys.argv[3], **write_film(target))
    else:
        write_public(target, np.load(sys.argv[3])["frames"], np.load(sys.argv[3])["sound"])

"""Load an exported folder with transformers or open_clip, encode, write what they give; knows nothing of twinreel.

`python load_public.py FORMAT FOLDER IN.npz OUT.npz`, in a Python with torch, transformers and open_clip. IN holds
`frames` uint8 [B,T,H,W,3], `ids` int [B,L], `mask` bool [B,L], `texts` and one `picture`. OUT receives the features
before they are divided by their length, and what the folder's tokenizer and processor give.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch


def vector(output):
    """Return the embedding, whatever the library wraps it in."""
    return (output if isinstance(output, torch.Tensor) else output.pooler_output).numpy()


def of_transformers(folder, given):
    """Encode with the model that AutoModel finds."""
    from transformers import AutoConfig, AutoModel

    kind = AutoConfig.from_pretrained(folder).model_type
    card = (folder / "README.md").read_text()
    options = {"add_pooling_layer": False} if "add_pooling_layer=False" in card else {}
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True, **options)
    found = {"complaints": np.array(json.dumps({key: sorted(map(str, value)) for key, value in report.items()}))}
    model = model.eval()
    ids, mask = torch.tensor(given["ids"]), torch.tensor(given["mask"])
    if kind in ("clip", "siglip"):
        found["frames"] = vector(model.get_image_features(pixel_values=normalised(folder, given["frames"])))
        found["text"] = vector(model.get_text_features(input_ids=ids))
    elif kind == "videoprism":
        video = torch.tensor(given["frames"] / np.float32(255)).permute(0, 1, 4, 2, 3)
        made = model(pixel_values_videos=video, input_ids=ids, attention_mask=mask.long())
        found["video"], found["text"] = made.video_embeds.numpy(), made.text_embeds.numpy()
    elif kind == "bert":
        found["text_tokens"] = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.numpy()
    else:
        found["frames"] = model(pixel_values=normalised(folder, given["frames"])).last_hidden_state[:, 0].numpy()
    return found | preprocessed(folder, given, kind=kind)


def normalised(folder, frames):
    """Return what the image processor's mean and deviation make of frames, [B*T,3,H,W]."""
    about = json.loads((folder / "preprocessor_config.json").read_text())
    mean, std = (np.float32(about[f"image_{name}"]) for name in ("mean", "std"))
    pixels = (frames.reshape(-1, *frames.shape[2:]) / np.float32(255) - mean) / std
    return torch.tensor(pixels).permute(0, 3, 1, 2)


def preprocessed(folder, given, *, kind):
    """Return ids of the texts and pixels of the first frame, by the folder's own files."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoTokenizer

    found = {}
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        words = tokenizer([str(text) for text in given["texts"]], padding="max_length", truncation=True)
        found["text_ids"] = np.array(words.input_ids)
    if kind != "videoprism" and (folder / "preprocessor_config.json").is_file():
        processor = AutoImageProcessor.from_pretrained(folder)
        found["picture"] = processor(images=Image.fromarray(given["picture"]), return_tensors="np")["pixel_values"][0]
    return found


def of_open_clip(folder, given):
    """Encode with the model that create_model_and_transforms makes."""
    import open_clip
    from PIL import Image

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model = model.eval()
    mean, std = (torch.tensor(values) for values in (model.visual.image_mean, model.visual.image_std))
    frames = given["frames"].reshape(-1, *given["frames"].shape[2:])
    pixels = ((torch.tensor(frames / np.float32(255)) - mean) / std).permute(0, 3, 1, 2)
    found = {
        "frames": model.encode_image(pixels).numpy(),
        "text": model.encode_text(torch.tensor(given["ids"])).numpy(),
        "picture": transform(Image.fromarray(given["picture"])).numpy(),
    }
    if (folder / "tokenizer_config.json").is_file():
        tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        found["text_ids"] = tokenize([str(text) for text in given["texts"]]).numpy()
    return found


if __name__ == "__main__":
    form, place, inputs, outputs = sys.argv[1:]
    with np.load(inputs) as read, torch.no_grad():
        arrays = {key: read[key] for key in read.files}
        np.savez(outputs, **{"hf": of_transformers, "open_clip": of_open_clip}[form](Path(place), arrays))

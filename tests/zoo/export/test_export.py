"""Round trips: public weights -> our model -> the same tensors; and models that twinreel made itself."""

import json

import numpy as np
import pytest
import yaml
from exported_models import clip_spec, random_params, trained_clip
from public_models import source
from safetensors.numpy import load_file

from twinreel.base.errors import UserError
from twinreel.zoo.bundle import write_bundle
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.open_clip_timm import PE_CORE, SIGLIP
from twinreel.zoo.export import public
from twinreel.zoo.export.compare import Check
from twinreel.zoo.export.export import ExportOptions, export
from twinreel.zoo.export.public import write_public
from twinreel.zoo.load import locate

TOKENS = (
    "class_embedding",
    "position_embedding.weight",
    "positional_embedding",
    "cls_token",
    "position_embeddings",
    "pos_embed",
)
CASES = {
    "clip/quick": "hf",
    "siglip": "hf",
    "videoprism/hf_lvt": "hf",
    "videoprism/hf_encoder": "hf",
    "open_clip/native": "open_clip",
    "open_clip/quick": "open_clip",
    "bert": "hf",
    "vit": "hf",
    "dinov2": "hf",
    "open_clip/siglip_exact": "open_clip",
    "open_clip/pe_core": "open_clip",
}
SIGLIP_TINY = {"patch": 8, "width": 24, "depth": 2, "heads": 3, "activation": "gelu_exact"}
PE_TINY = {"patch": 8, "width": 48, "depth": 2, "heads": 3, "pool_heads": 4}


@pytest.fixture
def parameters_only(monkeypatch):
    """Leave out the comparison of embeddings, which compiles."""
    monkeypatch.setattr(public, "largest_difference", lambda first, second: [])


@pytest.mark.parametrize("name", CASES)
def test_tensors_come_out_as_they_went_in(name, tmp_path, parameters_only, monkeypatch):
    monkeypatch.setitem(SIGLIP, "vit_tiny_patch8_siglip_32", SIGLIP_TINY)  # timm has no models as small as these
    monkeypatch.setitem(PE_CORE, "vit_pe_core_nano_patch8_32", PE_TINY)
    made, out = convert(source(name, tmp_path / "source")), tmp_path / "out"
    out.mkdir()
    written = write_public(made.spec, params=made.params, folder=out, format=CASES[name], tokenizer="public")
    assert written.checks == [Check(name=f"{sum(held(made)):,} parameters", difference=0.0)]  # read back, bit for bit
    (before,), (after,) = (sorted(place.glob("*.safetensors")) for place in (tmp_path / "source", out))
    assert before.name == after.name
    old, new = load_file(before), load_file(after)
    positions = {"text_model.embeddings.position_embedding"} if "lvt" in name else set()  # DeepMind's instead
    ignored = {key for key in old if key.endswith(("position_ids", "attn_mask", "mask_token", "pooler.dense.bias"))}
    assert old.keys() - ignored - {"pooler.dense.weight"} == new.keys() - ignored - {"pooler.dense.weight"}
    for key in new.keys() - positions - ignored:
        assert new[key].shape == old[key].shape and new[key].dtype == old[key].dtype, key
        if not (key.endswith(TOKENS) and "video" not in name and "text" not in key):
            np.testing.assert_array_equal(new[key], old[key], err_msg=key)


def held(made):
    """Sizes of the parameters that files hold: VideoPrism's have no temperature."""
    without = ("log_scale",) if made.family == "videoprism" else ()
    return [value.size for path, value in made.params.items() if path not in without]


def test_a_model_of_our_own_making(tmp_path):
    """Its video projection stands beside the tower, in CLIP's files it is the image tower's."""
    bundle = trained_clip(tmp_path / "bundle", initial_bias=-3.0)
    made = export(bundle, out=tmp_path / "out", options=ExportOptions(format="hf"))
    assert [one.name.partition(" ")[2] for one in made.checks] == ["parameters", "embeddings", "embeddings"]
    assert made.checks[0].difference == 0 and max(one.difference for one in made.checks) < 1e-6
    (note,) = made.notes
    assert note.startswith("bias = ") and note.endswith("is not in the folder: embeddings do not depend on it")
    tensors, params = load_file(tmp_path / "out" / "model.safetensors"), locate(bundle).params()
    np.testing.assert_array_equal(tensors["visual_projection.weight"], params["video_projection/kernel"].T)
    np.testing.assert_array_equal(tensors["logit_scale"], params["log_scale"])
    card = (tmp_path / "out" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "transformers" and "license" not in header
    assert 'AutoModel.from_pretrained("out")' in card and "licence of the weights: not stated" in card
    assert "| video embeddings |" in card and "No evaluation came with this checkpoint" in card
    assert str(tmp_path) not in card  # no path of this machine


def test_siglip_without_its_bias(tmp_path, parameters_only):
    """SigLIP's towers trained with InfoNCE have no bias; transformers wants one."""
    made = convert(source("siglip", tmp_path / "siglip"))
    params = {path: value for path, value in made.params.items() if path != "bias"}
    write_bundle(tmp_path / "bundle", spec=made.spec.replace(initial_bias=None), params=params)
    done = export(tmp_path / "bundle", out=tmp_path / "out", options=ExportOptions(format="hf"))
    assert any("logit_bias is 0" in note for note in done.notes)
    np.testing.assert_array_equal(load_file(tmp_path / "out" / "model.safetensors")["logit_bias"], [0.0])


def test_one_family_in_the_form_of_another(tmp_path, parameters_only):
    export(source("open_clip/quick", tmp_path / "a"), out=tmp_path / "hf", options=ExportOptions(format="hf"))
    export(tmp_path / "hf", out=tmp_path / "back", options=ExportOptions(format="open_clip"))
    old, new = convert(tmp_path / "a"), convert(tmp_path / "back")
    for path, value in old.params.items():
        np.testing.assert_array_equal(new.params[path], value, err_msg=path)


def test_sinusoids_are_those_with_which_the_model_computes(tmp_path, parameters_only):
    from twinreel.models.layers.positions import sinusoids

    folder = source("videoprism/hf_lvt", tmp_path / "source")
    done = export(folder, out=tmp_path / "out", options=ExportOptions(format="hf"))
    assert any("DeepMind's sinusoids" in note for note in done.notes)
    table = load_file(tmp_path / "out" / "model.safetensors")["text_model.embeddings.position_embedding"]
    np.testing.assert_allclose(table, sinusoids(10, width=32, endpoint=True), atol=1e-6)
    stored = convert(folder, options={"text_positions": "stored"})
    write_bundle(tmp_path / "stored", spec=stored.spec, params=stored.params)
    export(tmp_path / "stored", out=tmp_path / "out2", options=ExportOptions(format="hf"))
    key, file = "text_model.embeddings.position_embedding", "model.safetensors"
    np.testing.assert_array_equal(load_file(tmp_path / "out2" / file)[key], load_file(folder / file)[key])


def test_what_reads_back_differently_is_never_left(tmp_path, monkeypatch, parameters_only):
    def damaged(values, **options):
        write(values | {"log_scale": values["log_scale"] + 1}, **options)

    write = public._write_tensors
    monkeypatch.setattr(public, "_write_tensors", damaged)
    with pytest.raises(UserError, match="'log_scale' reads back differently"):
        export(trained_clip(tmp_path / "bundle"), out=tmp_path / "out", options=ExportOptions(format="hf"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_embeddings_that_differ_are_an_error(tmp_path):
    from twinreel.zoo.export.compare import largest_difference

    spec = clip_spec()
    params = random_params(spec)
    changed = params | {"text/position": params["text/position"][::-1]}
    with pytest.raises(UserError, match=r"text embeddings of what was written are up to .* more than 0\.0001"):
        largest_difference((spec, params), (spec, changed))


def test_the_name_on_the_hub_is_where_open_clip_finds_the_tokenizer(tmp_path, parameters_only):
    options = ExportOptions(format="open_clip", name="lab/clip")
    export(trained_clip(tmp_path / "bundle"), out=tmp_path / "out", options=options)
    config = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] == "lab/clip"
    assert 'create_model_and_transforms("hf-hub:lab/clip")' in (tmp_path / "out" / "README.md").read_text()

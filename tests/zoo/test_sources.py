"""Towers from several sources in one model section."""

import numpy as np
import pytest
from public_models import GOLDEN, source

from twinreel.base.errors import UserError
from twinreel.zoo.load import locate
from twinreel.zoo.sources import find_sources

CLIP, SIGLIP, BERT, DINOV2 = (str(GOLDEN / name) for name in ("clip/quick", "siglip", "bert", "dinov2"))


def test_a_section_without_sources_has_none():
    assert find_sources({"embed_dim": 4, "video": {"width": 8}, "text": {}, "audio": None}, data={}) is None
    assert find_sources({"source": "", "video": {"source": ""}}, data={}) is None


def test_one_source_gives_everything_that_the_config_leaves_open():
    found = find_sources({"source": CLIP, "remat": "full"}, data={"num_frames": 4, "context_length": None})
    spec = locate(CLIP).spec
    assert found.model["video"] == spec.towers["video"] and found.model["text"] == spec.towers["text"]
    assert (found.model["embed_dim"], found.model["remat"]) == (12, "full")
    assert found.model["projections"] == {"video": "none", "text": "linear"}
    assert found.input["context_length"] == 16 and "num_frames" not in found.input
    assert found.input["pixel_mean"] == spec.input.pixel_mean and found.tokenizer == spec.tokenizer
    params = locate(CLIP).params()
    assert found.params().keys() == params.keys()  # text projection and temperature among them
    assert found.origins["text"]["licence"] == "MIT" and len(found.origins["text"]["sha256"]) == 64


def test_towers_of_two_sources_meet_in_a_new_space():
    model = {"embed_dim": 16, "video": {"source": DINOV2, "over_time": "transformer"}, "text": {"source": BERT}}
    found = find_sources(model, data={})
    assert found.model["video"]["image"] == locate(DINOV2).spec.towers["video"]["image"]
    assert found.model["video"]["over_time"] == "transformer" and "source" not in found.model["video"]
    assert found.model["projections"] == {"video": "linear", "text": "linear"}
    params = found.params()
    assert {path.split("/")[0] for path in params} == {"video", "text"}
    np.testing.assert_array_equal(params["text/embedding"], locate(BERT).params()["text/embedding"])
    assert found.input["eval_video"] == "resize_bilinear(32,32)" and found.input["context_length"] == 16
    assert found.tokenizer == {} and found.name == f"{DINOV2} and {BERT}"


def test_a_projection_stays_where_the_space_has_its_width():
    found = find_sources({"embed_dim": 12, "video": {"source": SIGLIP}, "text": {"source": CLIP}}, data={})
    assert found.model["projections"] == {"video": "linear", "text": "linear"}
    assert "text_projection/kernel" in found.params() and "log_scale" not in found.params()
    wider = find_sources({"source": CLIP, "embed_dim": 20}, data={})
    assert wider.model["projections"] == {"video": "linear", "text": "linear"}
    assert not [path for path in wider.params() if "_projection" in path]


def test_changes_reach_into_sections_of_a_tower():
    model = {"source": CLIP, "video": {"image": {"image_size": 64, "block": {"norm_epsilon": 1e-6}}}, "audio": {}}
    found = find_sources(model, data={"context_length": 8})
    image = found.model["video"]["image"]
    assert (image["image_size"], image["width"]) == (64, 24)
    assert image["block"] == {"mlp_hidden": 40, "norm_epsilon": 1e-6}
    assert found.model["text"]["positions"] == 16  # the table keeps its rows, of which 8 are used
    assert found.model["audio"] == {} and "audio" not in found.towers


def test_a_new_tower_beside_those_of_the_source():
    own = {"width": 8, "depth": 1, "heads": 2, "source": ""}
    found = find_sources({"source": CLIP, "text": own}, data={})
    assert found.model["text"] == {"width": 8, "depth": 1, "heads": 2}
    assert set(found.towers) == {"video"} and found.tokenizer == {} and "context_length" not in found.input


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"video": {"source": BERT}}, r"config\.model\.video\.source='.*bert' has no video tower \(it has: text\)"),
        ({"source": CLIP, "text": {"family": "lstm"}}, r"text\.family='lstm', but .* is 'transformer'; leave .* out"),
        ({"source": DINOV2, "text": {}}, r"config\.model\.embed_dim is not set.*without a joint space; set it"),
        ({"video": {"source": CLIP}, "text": {"source": SIGLIP}}, r"joint spaces of \[12, 24\] numbers; set it"),
        ({"source": "no/such"}, r"config\.model\.source='no/such': no checkpoint at .*no/such"),
        ({"source": CLIP, "text": {"source": "hf:no"}}, r"config\.model\.text\.source='hf:no': .*hf:ORGANISATION/NAME"),
        ({"source": CLIP, "text": {"variant": "L"}}, r"text\.variant='L', but its source gives.*leave .* out"),
        ({"source": CLIP, "video": {"image": {"variant": "B/16"}}}, r"config\.model\.video\.image\.variant='B/16'"),
    ],
)
def test_sections_that_cannot_be_joined(model, message):
    with pytest.raises(UserError, match=message):
        find_sources(model, data={})


def test_weights_that_another_file_replaced_have_another_sha256(tmp_path):
    folder = source("bert", tmp_path / "bert")
    before = locate(folder).spec.origin["sha256"]
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert locate(folder).spec.origin["sha256"] != before

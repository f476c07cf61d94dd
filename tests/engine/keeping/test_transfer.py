"""What comes of each parameter when a new model starts from a checkpoint."""

import jax
import numpy as np
import pytest
from dual_towers import build, build_classifier
from flax import nnx
from rich.console import Console

from twinreel.base.errors import UserError
from twinreel.engine.keeping.transfer import fill, plan_transfer, position_resizers, shapes

TOWER = {"image_size": 8, "patch": 4, "width": 8, "depth": 1, "heads": 2, "temporal_depth": 1}


def dual(**video):
    return build(
        video=TOWER | video,
        text={"width": 8, "depth": 1, "heads": 2},
        embed_dim=4,
        num_frames=4,
        context_length=6,
        vocab_size=20,
        rngs=nnx.Rngs(1),
    )


@pytest.fixture(scope="module")
def pretrained():
    return {path: np.asarray(value) for path, value in shapes(dual()).items()}


def classifier(*, num_frames=4, **video):
    return build_classifier(
        video=TOWER | video,
        num_frames=num_frames,
        num_classes=3,
        head="linear",
        head_options={},
        rngs=nnx.Rngs(0),
    )


def test_tower_is_loaded_head_is_new_rest_is_unused(pretrained):
    model = classifier()
    found = plan_transfer(pretrained, target=shapes(model), parts=("video/.*",))
    before = {path: np.asarray(value) for path, value in shapes(model).items()}
    fill(model, values=found.values)
    for path, value in shapes(model).items():
        wanted = pretrained[path] if path.startswith("video/") else before[path]
        np.testing.assert_array_equal(value, wanted)
    assert {p: s for p, s in found.status.items() if p.startswith("head/")} == {
        "head/scores/bias": "new",
        "head/scores/kernel": "new",
    }
    assert found.status["log_scale"] == found.status["text/embedding"] == "unused"
    assert all(s == "loaded" for p, s in found.status.items() if p.startswith("video/"))


def test_other_number_of_frames_and_pixels_is_resized(pretrained):
    model = classifier(num_frames=7, image_size=16)
    kinds = position_resizers(model)
    found = plan_transfer(pretrained, target=shapes(model), parts=("video/.*",), resizers=kinds)
    resized = [path for path, status in found.status.items() if status == "resized"]
    assert sorted(resized) == ["video/space_position", "video/time_position"]
    fill(model, values=found.values)
    assert model.video.time_position[...].shape == (7, 8)
    rows = {(row["group"], row["status"]): row for row in found.groups()}
    assert rows["video/time_position", "resized"]["note"] == "4 x 8 -> 7 x 8"
    assert rows["video/space_position", "resized"]["parameters"] == 16 * 8
    console = Console(record=True, width=120)
    console.print(found.table())
    shown = console.export_text()
    for word in ("loaded", "resized", "new", "unused", "4 x 8 -> 7 x 8", "head/scores", "text/blocks"):
        assert word in shown


def test_another_architecture_gives_a_table(pretrained):
    target = shapes(nnx.eval_shape(lambda: classifier(depth=2, mlp_ratio=2.0, pool="depthwise")))
    with pytest.raises(UserError) as raised:
        plan_transfer(pretrained, target=target, parts=("video/.*",), name="runs/x/checkpoints/10")
    message = str(raised.value)
    assert "runs/x/checkpoints/10" in message
    assert "in checkpoint" in message and "in model" in message
    absent = next(line for line in message.splitlines() if "video/pool" in line)
    assert "(absent)" in absent
    deeper = next(line for line in message.splitlines() if "video/space/layers/norm1/scale" in line)
    assert "1 x 8" in deeper and "2 x 8" in deeper
    other = next(line for line in message.splitlines() if "video/time/layers/up/kernel" in line)
    assert "8 x 32" in other and "8 x 16" in other


def test_all_that_the_checkpoint_has_leaves_what_it_lacks_new(pretrained):
    target = shapes(dual()) | {"bias": np.zeros(())}
    found = plan_transfer(pretrained, target=target, parts=None)
    assert {path for path, status in found.status.items() if status != "loaded"} == {"bias"}
    assert found.status["bias"] == "new" and "bias" not in found.values
    with pytest.raises(UserError, match=r"bias +\(absent\)(.|\n)*leave these out of --init_parts"):
        plan_transfer(pretrained, target=target, parts=(".*",), parts_flag="--init_parts")
    with pytest.raises(UserError, match="x has none of the new model's parameters"):
        plan_transfer(pretrained, target={"other/kernel": np.zeros(3)}, parts=None, name="x")
    with pytest.raises(UserError, match="video/time_position"):  # another shape is not new
        plan_transfer(pretrained, target={"video/time_position": np.zeros((4, 6))}, parts=None)


def test_positions_of_another_width_do_not_fit(pretrained):
    target = {"video/time_position": jax.ShapeDtypeStruct((4, 6), np.float32)}
    with pytest.raises(UserError, match="video/time_position"):
        plan_transfer(pretrained, target=target, parts=("video/.*",))


def test_fill_keeps_the_placement():
    model = classifier()
    device = jax.devices()[3]
    nnx.update(model, jax.device_put(nnx.state(model), device))
    fill(model, values={"head/scores/bias": np.ones(3)})
    bias = model.head.scores.bias[...]
    assert bias.devices() == {device} and bias.dtype == np.float32
    np.testing.assert_array_equal(bias, np.ones(3, np.float32))

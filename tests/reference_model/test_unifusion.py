from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from reference_model.unet import InstanceUNet
from reference_model.unifusion import UniFusion, resolve_keep

Inputs = dict[str, Tensor]
N = 4


def sample0(grounding: Inputs, **changes: Tensor | None) -> dict[str, Tensor | None]:
    inputs: dict[str, Tensor | None] = {k: v[:1] for k, v in grounding.items() if k != "att_masks"}
    return inputs | changes


@pytest.mark.parametrize("config", ["box", "mask", "point", "scribble"])
def test_tokens_equal_recorded(
    config: str,
    golden_tokens: Inputs,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    recorded = load_arrays("unifusion")
    assert golden_tokens[config].shape == (2, 184, 32)
    assert relative_error(golden_tokens[config], recorded[f"{config}.objs"]) <= 1e-5


@pytest.mark.parametrize("config", ["box", "mask", "point", "scribble"])
def test_null_tokens_equal_recorded(
    config: str,
    golden_unet: InstanceUNet,
    golden_grounding: Inputs,
    golden_keep: dict[str, tuple[str, ...]],
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    zeros = {k: torch.zeros_like(v) for k, v in sample0(golden_grounding).items() if v is not None}
    out = golden_unet.position_net(**zeros, keep=golden_keep[config])
    assert relative_error(out, load_arrays("unifusion")[f"{config}.null_objs"]) <= 1e-5


def test_small_segments_are_resized(
    golden_unet: InstanceUNet,
    golden_grounding: Inputs,
    golden_inputs: Inputs,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    segs = torch.zeros(1, 30, 96, 96)
    segs[0, :3] = golden_inputs["segs_instances_96_u8"].float()
    out = golden_unet.position_net(**sample0(golden_grounding, segs=segs), keep=("box", "point", "mask"))
    assert relative_error(out, load_arrays("unifusion")["mask.sample0_segs96.objs"]) <= 1e-5


def test_zero_polygons_of_a_filled_slot_are_not_the_null(
    golden_unet: InstanceUNet,
    golden_grounding: Inputs,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    zeros = {name: torch.zeros_like(golden_grounding[name][:1]) for name in ("segs", "polygons")}
    out = golden_unet.position_net(**sample0(golden_grounding, **zeros), keep=("box", "point", "mask"))
    assert relative_error(out, load_arrays("unifusion")["mask.sample0_no_masks_given.objs"]) <= 1e-5


def test_points_default_to_box_centres(
    golden_unet: InstanceUNet,
    golden_grounding: Inputs,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    out = golden_unet.position_net(**sample0(golden_grounding, points=None), keep=("box", "point"))
    assert relative_error(out, load_arrays("unifusion")["box.sample0_points_None.objs"]) <= 1e-5


def test_keep_nothing_means_box(tiny_unet: InstanceUNet, tiny_grounding: Inputs) -> None:
    net = tiny_unet.position_net
    assert torch.equal(net(**tiny_grounding, keep=()), net(**tiny_grounding, keep=("box",)))
    assert resolve_keep(("mask", "box")) == ("box", "mask")
    assert resolve_keep("mask") == ("mask",)
    assert resolve_keep(name for name in ("point", "box")) == ("box", "point")
    with pytest.raises(ValueError, match="'boxes'"):
        net(**tiny_grounding, keep=("boxes",))


def test_format_masks_give_exactly_the_null(tiny_unet: InstanceUNet, tiny_grounding: Inputs) -> None:
    net = tiny_unet.position_net
    present = tiny_grounding["masks"].bool()
    both = net(**tiny_grounding, format_masks=dict.fromkeys(("box", "point", "scribble", "mask"), present))
    assert torch.allclose(both, net(**tiny_grounding), atol=1e-6)

    for index, name in enumerate(("box", "point", "scribble")):
        absent = present.clone()
        absent[0, 1] = False
        out = net(**tiny_grounding, format_masks={name: absent})
        dropped = net(**tiny_grounding, keep=[f for f in ("box", "point", "scribble", "mask") if f != name])
        slot = index * N + 1
        assert torch.allclose(out[0, slot], dropped[0, slot], atol=1e-5), name
        others = [i for i in range(out.shape[1]) if i != slot]
        assert torch.allclose(out[0, others], both[0, others], atol=1e-6), name
        assert torch.allclose(out[1], both[1], atol=1e-6), name
        assert not torch.allclose(out[0, slot], both[0, slot], atol=1e-3), name


def test_absent_mask_leaves_the_segment_too(tiny_unet: InstanceUNet, tiny_grounding: Inputs) -> None:
    net = tiny_unet.position_net
    absent = tiny_grounding["masks"].clone()
    absent[0, 1] = 0
    absent[1] = 0
    out = net(**tiny_grounding, format_masks={"mask": absent})
    segs = tiny_grounding["segs"].clone()
    segs[0, 1] = 0
    assert torch.allclose(out[0, 4 * N :], net(**(tiny_grounding | {"segs": segs}))[0, 4 * N :], atol=1e-5)
    dropped = net(**tiny_grounding, keep=("box", "point", "scribble"))
    assert torch.allclose(out[1], dropped[1], atol=1e-5)


def test_arrays_and_other_number_types(tiny_unet: InstanceUNet, tiny_grounding: Inputs) -> None:
    expected = tiny_unet.position_net(**tiny_grounding)
    changed = {name: tensor.numpy() for name, tensor in tiny_grounding.items()}
    changed |= {"segs": changed["segs"].astype(np.uint8), "masks": changed["masks"].astype(bool)}
    changed["boxes"] = changed["boxes"].astype(np.float64)
    assert torch.allclose(tiny_unet.position_net(**changed), expected, atol=1e-5)


def test_missing_formats_are_null(tiny_unet: InstanceUNet, tiny_grounding: Inputs) -> None:
    net = tiny_unet.position_net
    missing = {"scribbles": None, "polygons": None, "segs": None}
    out = net(**(tiny_grounding | missing))
    assert torch.allclose(out, net(**tiny_grounding, keep=("box", "point")), atol=1e-6)


def test_without_segment_branch() -> None:
    net = UniFusion(8, 12, 16, max_instances=3, convnext_depths=None, convnext_widths=None)
    assert net.num_tokens == 12
    out = net(boxes=torch.rand(2, 3, 4), masks=torch.ones(2, 3), positive_embeddings=torch.rand(2, 3, 8))
    assert out.shape == (2, 12, 12)


def test_sizes_of_the_segment_branch() -> None:
    kwargs = {"convnext_depths": (1, 1, 1, 1), "convnext_widths": (8, 8, 8, 8)}
    assert UniFusion(8, 8, 8, max_instances=2, segment_size=128, **kwargs).num_segment_tokens == 4  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="multiple of 64"):
        UniFusion(8, 8, 8, segment_size=96, **kwargs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="together"):
        UniFusion(8, 8, 8, convnext_depths=(1, 1, 1, 1), convnext_widths=None)
    with pytest.raises(ValueError, match="four entries"):
        UniFusion(8, 8, 8, convnext_depths=(1, 1), convnext_widths=(8, 8))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("masks", (2, 3), "masks: shape"),
        ("positive_embeddings", (2, 4, 31), "positive_embeddings: shape"),
        ("scribbles", (2, 4, 20), "scribble coordinates: shape"),
        ("segs", (2, 3, 64, 64), "segs: shape"),
        ("segs", (2, 4, 64), "segs: shape"),
    ],
)
def test_wrong_shapes_are_named(
    name: str, shape: tuple[int, ...], message: str, tiny_unet: InstanceUNet, tiny_grounding: Inputs
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_unet.position_net(**(tiny_grounding | {name: torch.zeros(shape)}))


def joint_net(**changes: int) -> UniFusion:
    torch.manual_seed(0)
    net = UniFusion(
        8, 12, 16, max_instances=3, convnext_depths=None, convnext_widths=None, joint_tokens=True, **changes
    )
    for name, parameter in net.named_parameters():
        if name.startswith("null"):
            torch.nn.init.normal_(parameter)
    return net


def joint_inputs(net: UniFusion) -> Inputs:
    shapes = {"boxes": 4, "points": 2, "scribbles": 40, "polygons": 512, "positive_embeddings": 8}
    return {"masks": torch.ones(2, 3)} | {name: torch.rand(2, 3, size) for name, size in shapes.items()}


def test_a_joint_token_reads_every_format_and_its_own_slot_alone() -> None:
    net = joint_net()
    assert (net.num_tokens, net.tokens_per_slot) == (3, 1)
    inputs = joint_inputs(net)
    before = net(**inputs)
    assert before.shape == (2, 3, 12)
    for name in inputs:
        changed = inputs | {name: inputs[name].clone()}
        changed[name][0, 1] = 0
        if name in ("scribbles", "polygons"):
            changed[name][0, 1, 0] = 1e-3  # not all zeros, which would stand for a missing format elsewhere
        moved = (net(**changed) - before).abs().amax(-1) > 1e-6
        assert moved.nonzero().tolist() == [[0, 1]], name


@pytest.mark.parametrize("dropped", ["box", "point", "scribble", "mask"])
def test_a_format_dropped_from_joint_tokens_is_its_null(dropped: str) -> None:
    net = joint_net()
    inputs = joint_inputs(net)
    keep = tuple(name for name in ("box", "point", "scribble", "mask") if name != dropped)
    absent = net(**inputs, format_masks={dropped: torch.zeros(2, 3)})
    assert torch.allclose(net(**inputs, keep=keep), absent, atol=1e-6)
    assert not torch.allclose(net(**inputs), absent, atol=1e-3)

"""GLIGEN's box tokens behind UniFusion's arguments."""

import pytest
import torch
from diffusers.models.embeddings import GLIGENTextBoundingboxProjection

from reference_model.box_tokens import BoxTokens
from reference_model.training.recipe import RECIPES, shapes_unet
from reference_model.unet import InstanceUNet


def _inputs(filled: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 5)
    masks[:, :filled] = 1
    return {
        "boxes": torch.rand(2, 5, 4, generator=generator) * masks[..., None],
        "masks": masks,
        "positive_embeddings": torch.randn(2, 5, 16, generator=generator) * masks[..., None],
    }


def _net() -> BoxTokens:
    torch.manual_seed(1)
    net = BoxTokens(16, 12, max_instances=5)
    torch.nn.init.normal_(net.null_positive_feature)
    torch.nn.init.normal_(net.null_position_feature)
    return net.eval()


def test_equal_to_diffusers_own_position_net():
    ours = _net()
    theirs = GLIGENTextBoundingboxProjection(16, 12)
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(**_inputs()), theirs(**_inputs()))


def test_other_formats_are_not_read():
    net, inputs = _net(), _inputs()
    extra = {
        "points": torch.rand(2, 5, 2),
        "scribbles": torch.rand(2, 5, 40),
        "polygons": torch.rand(2, 5, 512),
    }
    assert torch.equal(net(**inputs), net(**inputs, **extra))


def test_without_a_box_a_slot_is_null():
    net, inputs = _net(), _inputs()
    empty = net(**_inputs(filled=0))
    assert torch.equal(net(**inputs, keep=("point",)), empty)
    presence = {"box": torch.zeros(2, 5)}
    assert torch.equal(net(**inputs, format_masks=presence), empty)
    presence["box"][:, 0] = 1
    mixed = net(**inputs, format_masks=presence)
    assert torch.equal(mixed[:, 1:], empty[:, 1:])
    assert not torch.equal(mixed[:, 0], empty[:, 0])


@pytest.mark.parametrize("name", ["boxes", "masks", "positive_embeddings"])
def test_wrong_shapes_are_named(name):
    inputs = _inputs()
    inputs[name] = inputs[name][:, :3]
    with pytest.raises(ValueError, match="shape"):
        _net()(**inputs)


def test_the_recipe_differs_in_gligens_parts_alone(tmp_path):
    recipe = RECIPES["shapes-gligen"]
    unet = shapes_unet(recipe, 8, 16, 32).eval()
    assert isinstance(unet.position_net, BoxTokens)
    assert unet.scaleu is None
    assert unet.config.masked_attention == "none"
    unet.save_pretrained(tmp_path / "unet")
    again = InstanceUNet.from_pretrained(tmp_path / "unet")
    tokens = again.position_net(
        torch.rand(1, 16, 4), torch.ones(1, 16), torch.randn(1, 16, 32), keep=("box",)
    )
    sample, text = torch.randn(1, 8, 16, 16), torch.randn(1, 7, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            unet(sample, 3, text, tokens).sample, again(sample, 3, text, tokens).sample
        )


def test_an_unknown_grounding_net_is_refused():
    with pytest.raises(ValueError, match="grounding_net"):
        InstanceUNet(grounding_net="layout")

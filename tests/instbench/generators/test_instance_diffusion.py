"""The reference model and the text-only floor as generators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from instbench.errors import InputError
from instbench.generators.base import Generator, SamplingSettings
from instbench.generators.checkpoint import hash_files, pipeline_folder
from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
from instbench.generators.text_only import TextOnlyGenerator
from instbench.layouts.types import Condition
from tests.reference_model.tiny import tiny_pipeline

from .helpers import instance, layout, request


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    tiny_pipeline().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def generator(folder):
    return InstanceDiffusionGenerator(folder, device="cpu", batch_size=2)


def pictures(generator, requests):
    return {made.image_key: np.asarray(made.image) for made in generator.generate(requests)}


def some_requests(conditions=(Condition.BOX,), **sampling):
    layouts = [
        layout("a", instance(0), instance(1)),
        layout("b", instance(2), caption="another"),
        layout("c", caption="nothing"),
    ]
    return [request(each, conditions, seed=i, **sampling) for i, each in enumerate(layouts)]


def test_it_is_a_generator(generator):
    assert isinstance(generator, Generator)
    assert generator.conditions == frozenset(Condition)


def test_images_do_not_depend_on_batch_and_order(folder, generator):
    requests = some_requests(mis=0.5)
    first = pictures(generator, requests)
    single = InstanceDiffusionGenerator(folder, device="cpu", batch_size=1)
    second = pictures(single, requests[::-1])
    assert set(first) == {"a", "b", "c"}
    for key, picture in first.items():
        assert picture.shape == (16, 16, 3)
        assert np.abs(picture.astype(int) - second[key]).max() <= 1


def test_the_shipped_weights_draw_the_same_whatever_the_bound_of_the_unet():
    shapes = [layout("a", *map(instance, range(3))), layout("b", instance(2))]
    asked = [
        request(one, seed=index, canvas=128, num_inference_steps=2, mis=0.5)
        for index, one in enumerate(shapes)
    ]
    drawn = {}
    generator = InstanceDiffusionGenerator(device="cpu")
    for bound in (1, 2, 8, None):
        generator.max_unet_batch = bound
        made = list(generator.generate(asked))
        assert generator.unet_rows_per_call(128) == (bound or 32)
        rows = sum(one.info["unet_rows"] for one in made)
        if bound == 1:
            assert sum(one.info["unet_calls"] for one in made) == rows
        drawn[bound] = (rows, {one.image_key: np.asarray(one.image, dtype=int) for one in made})
    for rows, images in drawn.values():
        assert rows == drawn[1][0]
        for key, image in images.items():
            assert np.abs(image - drawn[1][1][key]).max() <= 1


def test_requests_with_different_settings_go_in_one_call(generator):
    mixed = [*some_requests(), request(layout("d", instance()), {Condition.POINT}, num_inference_steps=2)]
    assert set(pictures(generator, mixed)) == {"a", "b", "c", "d"}


def test_withheld_formats_do_not_change_the_image(generator):
    full = request(layout("a", instance()), {Condition.POINT})
    bare = instance(box_xyxy=None, mask=None, mask_points_xy=None, scribble_xy=None)
    alone = request(layout("a", bare), {Condition.POINT})
    assert np.array_equal(pictures(generator, [full])["a"], pictures(generator, [alone])["a"])


def test_info_counts_what_happened(generator):
    crowded = layout("a", *map(instance, range(6)), caption="a caption far too long for it")
    (made,) = generator.generate([request(crowded, num_inference_steps=2)])
    assert made.info["dropped_instances"] == 2
    assert made.info["unet_calls"] == 3
    assert list(made.info["truncated"]) == ["a caption far too long for it"]
    assert made.info["seconds"] >= 0
    json.dumps(dict(made.info))


def test_text_only_shows_no_instance(folder):
    floor = TextOnlyGenerator(folder, device="cpu")
    with_instances = [request(layout("a", instance(0), instance(1)))]
    without = [request(layout("a"))]
    assert np.array_equal(pictures(floor, with_instances)["a"], pictures(floor, without)["a"])
    assert floor.resolve_sampling(SamplingSettings(mis=0.3)).mis == 0.0
    assert floor.identity()["kind"] == "text-only"


def test_sampling_gaps_are_filled_by_the_checkpoint(generator):
    resolved = generator.resolve_sampling(SamplingSettings(guidance_scale=2.0))
    assert resolved == SamplingSettings(4, 2.0, 1.0, 0.0, "")


def test_identity_names_every_weight_file(folder, generator):
    identity = generator.identity()
    assert identity["kind"] == "instance-diffusion"
    assert identity["dtype"] == "float32"
    weights = {name for name in identity["sha256"] if name.endswith(".safetensors")}
    assert weights == {
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }
    assert identity["sha256"] == hash_files(folder)
    json.dumps(identity)


def test_identity_follows_the_files(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    before = hash_files(tmp_path)
    (tmp_path / "model_index.json").write_text('{"a": 1}')
    assert hash_files(tmp_path) != before


def test_bad_layouts_are_named(generator):
    empty = request(layout("img-9", instance(phrase=" ")))
    with pytest.raises(InputError, match="img-9, instance 0: the phrase is empty"):
        list(generator.generate([empty]))
    with pytest.raises(InputError, match="multiples of 2"):
        list(generator.generate([request(layout("a"), canvas=17)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "int8"}, "--dtype"), ({"batch_size": 0}, "--batch-size")],
)
def test_bad_options_are_named(folder, options, message):
    with pytest.raises(InputError, match=message):
        InstanceDiffusionGenerator(folder, **options)


def test_unknown_device_is_named(folder):
    with pytest.raises(InputError, match="--device toaster"):
        InstanceDiffusionGenerator(folder, device="toaster").identity()


def test_wrong_checkpoints_are_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        pipeline_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no model_index\.json"):
        pipeline_folder(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text("{broken")
    with pytest.raises(InputError, match="cannot be read"):
        pipeline_folder(tmp_path)
    index.write_text("[]")
    with pytest.raises(InputError, match="JSON object"):
        pipeline_folder(tmp_path)
    index.write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(InputError, match="StableDiffusionPipeline, not an InstanceDiffusionPipeline"):
        pipeline_folder(tmp_path)
    with pytest.raises(InputError, match="is a single file; give a pipeline folder"):
        pipeline_folder(index)


def test_damaged_weights_are_named(folder, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="truncated or damaged") as error:
        list(InstanceDiffusionGenerator(broken, device="cpu").generate([request(layout("a"))]))
    assert "\n" not in str(error.value)

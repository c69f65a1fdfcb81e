"""The autoencoder's own ceiling: reconstructions resemble the real images and sample nothing."""

import numpy as np

from instbench.benchmarks import load_benchmark
from instbench.execution.layouts import make_layouts
from instbench.generators.base import GenerationRequest, SamplingSettings
from instbench.generators.real_images import RealImagesGenerator
from instbench.generators.reconstructions import ReconstructionsGenerator


def test_shipped_autoencoder_keeps_the_pictures():
    layouts = make_layouts(load_benchmark("shapes-box"))[:2]
    requests = [GenerationRequest(layout, frozenset(), 0, 128) for layout in layouts]
    generator = ReconstructionsGenerator(None, device="cpu")
    restored = {
        image.image_key: np.asarray(image.image, dtype=float) for image in generator.generate(requests)
    }
    for real in RealImagesGenerator().generate(requests):
        error = ((restored[real.image_key] - np.asarray(real.image, dtype=float)) ** 2).mean()
        assert 10 * np.log10(255**2 / error) > 30
    assert generator.resolve_sampling(SamplingSettings(mis=0.3)) == SamplingSettings()
    assert generator.identity()["kind"] == "reconstructions"

"""Feature distances as torchmetrics classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from metrics.functional.frechet import FeatureStatistics, frechet_distance, kernel_distance

__all__ = ["ClipScore", "FrechetDistance", "KernelInceptionDistance"]


def _checked(features: torch.Tensor, num_features: int) -> torch.Tensor:
    if features.ndim != 2 or features.shape[1] != num_features:
        raise ValueError(f"features: shape {tuple(features.shape)}; expected [images, {num_features}]")
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features: a value is not finite; leave that image out or compute it again")
    return features.detach().double()


class ClipScore(Metric):
    """Mean over images of max(100 * cosine of image and text features, 0); see `clip_score`.

    Args:
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    total: torch.Tensor
    count: torch.Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, images: torch.Tensor, texts: torch.Tensor) -> None:
        """Add pairs of features.

        Args:
            images: [N, D] image features, of any length.
            texts: [N, D] features of their captions.

        Raises:
            ValueError: If the shapes do not fit.
        """
        if images.ndim != 2 or images.shape != texts.shape:
            raise ValueError(
                f"images {tuple(images.shape)} and texts {tuple(texts.shape)}: give [N, D] twice"
            )
        cosines = torch.nn.functional.cosine_similarity(images.double(), texts.double())
        self.total = self.total + (100 * cosines).clamp(min=0).sum().to(self.total.device)
        self.count = self.count + len(images)

    def compute(self) -> torch.Tensor:
        """The score as float64; NaN without images."""
        if int(self.count) == 0:
            return torch.tensor(float("nan"), dtype=torch.float64)
        value: torch.Tensor = self.total / self.count
        return value


class FrechetDistance(Metric):
    """Fréchet distance (FID) of generated features to reference features, from streamed sums.

    Memory is D x D per set, whatever the number of images.

    Args:
        num_features: Length D of a feature.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False

    def __init__(self, num_features: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_features < 1:
            raise ValueError(f"num_features: {num_features} must be at least 1")
        self.num_features = num_features
        size = num_features
        for kind in ("reference", "generated"):
            self.add_state(f"{kind}_sum", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(
                f"{kind}_outer", torch.zeros(size, size, dtype=torch.float64), dist_reduce_fx="sum"
            )
            self.add_state(f"{kind}_count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, features: torch.Tensor, real: bool) -> None:
        """Add features.

        Args:
            features: [N, D] of any floating type; summed in float64.
            real: Whether they belong to the reference set.

        Raises:
            ValueError: If the shape does not fit or a value is not finite.
        """
        values = _checked(features, self.num_features).to(self.device)
        kind = "reference" if real else "generated"
        setattr(self, f"{kind}_sum", getattr(self, f"{kind}_sum") + values.sum(dim=0))
        setattr(self, f"{kind}_outer", getattr(self, f"{kind}_outer") + values.T @ values)
        setattr(self, f"{kind}_count", getattr(self, f"{kind}_count") + len(values))

    def statistics(self, real: bool) -> FeatureStatistics | None:
        """Mean and covariance of one set; None with fewer than two images."""
        kind = "reference" if real else "generated"
        count = int(getattr(self, f"{kind}_count"))
        if count < 2:
            return None
        mean = _numpy(getattr(self, f"{kind}_sum")) / count
        covariance = (_numpy(getattr(self, f"{kind}_outer")) - count * np.outer(mean, mean)) / (count - 1)
        return FeatureStatistics(mean, covariance, count)

    def compute(self) -> torch.Tensor:
        """The distance as float64; NaN if a set has fewer than two images."""
        ours, theirs = self.statistics(real=False), self.statistics(real=True)
        if ours is None or theirs is None:
            return torch.tensor(float("nan"), dtype=torch.float64)
        value = frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance)
        return torch.tensor(value, dtype=torch.float64)


class KernelInceptionDistance(Metric):
    """Kernel distance (KID) of generated features to reference features; keeps all features.

    Args:
        num_features: Length D of a feature.
        subsets: Number of subsets.
        subset_size: Images per subset; None takes 1000, or all of the smaller set.
        seed: Seed of the subsets.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False

    reference: list[torch.Tensor]
    generated: list[torch.Tensor]

    def __init__(
        self,
        num_features: int,
        subsets: int = 100,
        subset_size: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_features = num_features
        self.subsets = subsets
        self.subset_size = subset_size
        self.seed = seed
        self.add_state("reference", [], dist_reduce_fx="cat")
        self.add_state("generated", [], dist_reduce_fx="cat")

    def update(self, features: torch.Tensor, real: bool) -> None:
        """Add features; see `FrechetDistance.update`."""
        values = _checked(features, self.num_features).to(self.device)
        (self.reference if real else self.generated).append(values)

    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., list[torch.Tensor]] = gather_all_tensors,
        process_group: Any | None = None,
    ) -> None:
        # Type and rank of the tensors must agree between processes, also of those without data.
        for kind in ("reference", "generated"):
            if isinstance(getattr(self, kind), list) and not getattr(self, kind):
                empty = torch.zeros(0, self.num_features, dtype=torch.float64, device=self.device)
                setattr(self, kind, [empty])
        super()._sync_dist(dist_sync_fn, process_group=process_group)

    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation over subsets; NaN if a set has fewer than two images."""
        ours, theirs = _numpy(_joined(self.generated)), _numpy(_joined(self.reference))
        if min(len(ours), len(theirs)) < 2:
            nothing = torch.tensor(float("nan"), dtype=torch.float64)
            return nothing, nothing.clone()
        mean, std = kernel_distance(
            ours, theirs, subsets=self.subsets, subset_size=self.subset_size, seed=self.seed
        )
        return torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)


def _joined(state: list[torch.Tensor] | torch.Tensor) -> torch.Tensor:
    if isinstance(state, list) and not state:
        return torch.zeros(0, 1, dtype=torch.float64)
    joined: torch.Tensor = dim_zero_cat(state)
    return joined


def _numpy(tensor: torch.Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.cpu().double().numpy()
    return array

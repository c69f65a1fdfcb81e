"""Two real processes, one of them with less to say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from metrics import FrechetDistance, KernelInceptionDistance, MaskIoU
from tests.metrics.builders import annotation, detection, truth

GT = truth(annotation(1, (0, 0, 10, 10)), annotation(2, (0, 0, 10, 10), image=2), images=2)
# Of full rank: where a variance is 0, the last bit of a sum moves the distance by its square root.
FEATURES = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    iou, fid, kid = MaskIoU({1: "a"}), FrechetDistance(3), KernelInceptionDistance(3, subsets=1)
    if rank == 0:
        iou.update(GT["images"][0], GT["annotations"][:1], [detection((0, 0, 10, 10))])
        iou.update(GT["images"][1], GT["annotations"][1:], [])
        kid.update(FEATURES[:4], real=False)
        kid.update(FEATURES[4:], real=True)
    fid.update(FEATURES[rank::2][:2], real=False)
    fid.update(FEATURES[rank::2][2:], real=True)
    values = torch.stack([iou.compute(), fid.compute(), kid.compute()[0]])
    torch.save(values, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_agree_with_one_process(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    fid, kid = FrechetDistance(3), KernelInceptionDistance(3, subsets=1)
    for metric in (fid, kid):
        metric.update(FEATURES[:4], real=False)
        metric.update(FEATURES[4:], real=True)
    expected = torch.stack([torch.tensor(0.5, dtype=torch.float64), fid.compute(), kid.compute()[0]])
    for result in results:
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)

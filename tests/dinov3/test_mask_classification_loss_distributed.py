"""The loss of two processes: their mean, and the gradients that they share, are those of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss

K, QUERIES, SIZE, WORLD = 3, 5, 16, 2
# targets of images 0 and 1 (first process) and of images 2 and 3 (second process)
CASES = {
    "different numbers": ((2, 1, 3, 3), False),
    "a process without targets": ((2, 3, 0, 0), False),
    "more targets than queries": ((7, 0, 1, 2), False),
    "fewer targets than processes": ((0, 0, 1, 0), False),
    "no targets at all": ((0, 0, 0, 0), False),
    "ignored pixels and a process that may use none": ((2, 1, 2, 2), True),
}


class TinyModel(nn.Module):
    """Three predictions of classes and masks that share their parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.classes, self.masks = nn.Linear(4, QUERIES * (K + 1)), nn.Conv2d(4, QUERIES, 1)

    def forward(self, images):
        predictions = [
            {
                "pred_logits": self.classes(maps.mean(dim=(2, 3))).unflatten(-1, (QUERIES, K + 1)),
                "pred_masks": 4 * self.masks(maps),
            }
            for maps in (images, images.square(), images.sin())
        ]
        return {**predictions[0], "aux_outputs": predictions[1:]}


def make_case(name):
    random = torch.Generator().manual_seed(len(name))
    counts, with_ignored = CASES[name]
    images = torch.randn(len(counts), 4, SIZE // 2, SIZE // 2, generator=random)
    targets = [
        {
            "labels": torch.randint(K, (count,), generator=random),
            "masks": torch.rand(count, SIZE, SIZE, generator=random) > 0.5,
        }
        for count in counts
    ]
    valid = torch.ones(len(counts), SIZE, SIZE, dtype=torch.bool)
    valid[0, :, 5:] = valid[2:] = not with_ignored
    return images, targets, valid if with_ignored else None


def losses_and_gradients(name, part, wrap=lambda model: model):
    """Losses and total of some images of a case, and the gradients of the model."""
    torch.set_num_threads(1)
    images, targets, valid = make_case(name)
    torch.manual_seed(7)
    model = wrap(TinyModel())
    criterion = MaskClassificationLoss(K, num_points=64)
    generators = [torch.Generator().manual_seed(100 + image) for image in range(len(images))[part]]
    losses = criterion(model(images[part]), targets[part], None if valid is None else valid[part], generators)
    total = criterion.total(losses)
    total.backward()
    losses = {key: value.detach() for key, value in (losses | {"total": total}).items()}
    return losses, [parameter.grad for parameter in model.parameters()]


def work(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    results = {}
    for name in CASES:
        part = slice(2 * rank, 2 * rank + 2)
        results[name] = losses_and_gradients(name, part, DistributedDataParallel)
    torch.save(results, Path(folder, f"{rank}.pt"))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_mean_over_processes_is_the_loss_of_one_process(tmp_path):
    spawn(work, args=(str(tmp_path),), nprocs=WORLD)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    for name in CASES:
        losses, gradients = losses_and_gradients(name, slice(None))
        per_rank = [rank[name] for rank in ranks]
        mean = {key: (per_rank[0][0][key] + per_rank[1][0][key]) / WORLD for key in losses}
        assert len(losses) == 10
        assert_close(mean, losses, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        for shared in (per_rank[0][1], per_rank[1][1]):
            assert_close(shared, gradients, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")

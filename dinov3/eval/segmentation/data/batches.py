"""Order of samples per process: batches for training, every sample once for evaluation.

Training draws are numbered: iteration t of a run on R processes with B images each uses the global positions t * B * R
to (t + 1) * B * R - 1. The image of a draw and its augmentation depend only on the seed and the position. The data are
therefore independent of the number of workers and, for the same B * R, of the number of processes, and a resumed run
sees the same data as an uninterrupted one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dinov3.eval.segmentation.data.dataset import SegmentationDataset, dataset_of
from dinov3.eval.segmentation.data.labels import SemanticToM2FTargets
from dinov3.eval.segmentation.data.random_streams import AUGMENTATION_STREAM, ORDER_STREAM, mixed_seed
from dinov3.eval.segmentation.transforms import View, make_segmentation_train_transforms
from dinov3.utils.errors import ProcessDiedError, UsageError, UserError
from dinov3.utils.processes.process_end import become_worker
from dinov3.utils.processes.process_group import rank_and_world_size

if TYPE_CHECKING:
    from dinov3.eval.segmentation.config import SegmentationConfig

logger = logging.getLogger(__name__)

_MOST_RESTARTS = 3

TrainTransform = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
EvalTransform = Callable[[Tensor, Tensor], tuple[list[View], Tensor]]


@dataclass(frozen=True)
class PositionSampler(Sampler[list[int]]):
    """The global positions of one process, a list per iteration."""

    batch_size: int
    """B, draws per process and iteration."""
    start_iteration: int
    total_iter: int
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return max(self.total_iter - self.start_iteration, 0)

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in range(self.start_iteration, self.total_iter):
            first = (iteration * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))


@dataclass(frozen=True)
class TrainingDraws(Dataset):
    """Random draws from a dataset by their global position; user errors are returned instead of raised.

    A data loader would re-raise them with the traceback of its worker in the message.
    """

    dataset: SegmentationDataset
    transform: TrainTransform
    seed: int
    targets: SemanticToM2FTargets | None = None

    def __getitem__(self, position: int) -> dict[str, Any] | UserError:
        try:
            sample = self.dataset[sample_of_position(position, len(self.dataset), self.seed)]
            generator = torch.Generator().manual_seed(mixed_seed(self.seed, AUGMENTATION_STREAM, position))
            image, label = self.transform(sample.image, sample.label, generator)
            draw = {"image": image, "label": label, "position": torch.tensor(position)}
            if self.targets is not None:
                target = self.targets(label)
                draw |= {"valid": target.pop("valid"), "targets": target}
            return draw
        except UserError as err:
            return err


def sample_of_position(position: int, num_samples: int, seed: int) -> int:
    """Returns the sample of a draw: each epoch of `num_samples` positions contains every sample once, reshuffled."""
    epoch, place = divmod(position, num_samples)
    return _order(seed, epoch, num_samples)[place]


def training_batches(
    dataset: SegmentationDataset,
    transform: TrainTransform,
    *,
    batch_size: int,
    seed: int,
    start_iteration: int = 0,
    total_iter: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    targets: SemanticToM2FTargets | None = None,
    pin_memory: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yields the batches of one process, one per iteration. The global random state is not used.

    Args:
        transform: see `make_segmentation_train_transforms`.
        batch_size: B, images of this process; the dataset may be smaller, because batches span epochs.
        seed: seed, at least 0.
        start_iteration: completed iterations.
        total_iter: iterations of the whole run.
        rank: rank of this process.
        world_size: number of processes.
        num_workers: worker processes for reading and transforms; 0: use this process.
        targets: converts each label map to masks, for models that are trained on masks.
        pin_memory: use page-locked memory, which allows asynchronous copies to a GPU.

    Yields:
        `image` (B, 3, h, w) float32, `label` (B, h, w) int64, `position` (B,) int64; and with `targets` also `targets`,
        a list of B dictionaries with `labels` and `masks`, and `valid` (B, h, w) bool.

    Raises:
        DataError: a file cannot be used; the message names it.
        UsageError: the images of a batch have different sizes.
    """
    draws = TrainingDraws(dataset, transform, seed, targets)

    def batches_from(iteration: int) -> DataLoader:
        return DataLoader(
            draws,
            batch_sampler=PositionSampler(batch_size, iteration, total_iter, rank, world_size),
            num_workers=num_workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            worker_init_fn=become_worker,
            generator=torch.Generator(),  # otherwise the loader draws from the global generator
        )

    for batch in restarted_with_workers(batches_from, start_iteration):
        if isinstance(batch, UserError):
            raise batch
        yield batch


def restarted_with_workers(items_from: Callable[[int], Iterable[Any]], first: int = 0) -> Iterator[Any]:
    """Yields the items of a data loader; one whose worker died is replaced by a new one, which goes on there.

    Args:
        items_from: creates the loader of the items from a number on.

    Raises:
        ProcessDiedError: workers died repeatedly.
    """
    for restart in range(_MOST_RESTARTS + 1):
        try:
            for item in items_from(first):
                yield item
                first += 1
            return
        except RuntimeError as err:
            if not str(err).startswith("DataLoader worker"):
                raise
            reason = str(err).split(".")[0]
            if restart == _MOST_RESTARTS:
                raise ProcessDiedError(
                    f"{reason}, the last of {restart + 1} that died; the usual causes are too little memory (signal "
                    "Killed: use fewer num_workers) and too little shared memory in /dev/shm (docker: --shm-size); "
                    "num_workers=0 reads in the main process"
                ) from err
            logger.warning("%s; new workers go on (%d of %d restarts)", reason, restart + 1, _MOST_RESTARTS)


def batches_of(
    config: SegmentationConfig,
    iteration: int,
    targets: SemanticToM2FTargets | None,
    *,
    size_multiple: int = 1,
    pin_memory: bool = False,
) -> Iterator[dict[str, Any]]:
    """The training batches of this process from `iteration` on; see `training_batches`.

    Args:
        size_multiple: Required divisor of the sides of the model's inputs.

    Raises:
        UsageError: There is no training set.
        DataError: A file cannot be used.
    """
    dataset = dataset_of(config, "train")
    transform = make_segmentation_train_transforms(
        **vars(config.transforms.train),
        reduce_zero_label=config.eval.reduce_zero_label,
        mean=config.transforms.mean,
        std=config.transforms.std,
        size_multiple=size_multiple,
    )
    rank, world_size = rank_and_world_size()
    return training_batches(
        dataset,
        transform,
        batch_size=config.bs,
        seed=config.seed,
        start_iteration=iteration,
        total_iter=config.scheduler.total_iter,
        rank=rank,
        world_size=world_size,
        num_workers=config.num_workers,
        targets=targets,
        pin_memory=pin_memory,
    )


@dataclass(frozen=True)
class EvaluationViews(Dataset):
    """Name, views and label map of each sample; user errors are returned instead of raised."""

    dataset: SegmentationDataset
    transform: EvalTransform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[str, list[View], Tensor] | UserError:
        try:
            sample = self.dataset[index]
            return sample.name, *self.transform(sample.image, sample.label)
        except UserError as err:
            return err


def evaluation_samples(
    dataset: SegmentationDataset,
    transform: EvalTransform,
    *,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
) -> Iterator[tuple[str, list[View], Tensor]]:
    """Yields name, views and label map of the samples of one process; each sample is read by exactly one process.

    Processes may get different numbers of samples, or none, so do not synchronise them per sample.

    Raises:
        DataError: a file cannot be used; the message names it.
    """
    indices = range(rank, len(dataset), world_size)

    def samples_from(number: int) -> DataLoader:
        return DataLoader(
            EvaluationViews(dataset, transform),
            batch_size=None,
            sampler=indices[number:],
            num_workers=num_workers,
            worker_init_fn=become_worker,
            generator=torch.Generator(),
        )

    for sample in restarted_with_workers(samples_from):
        if isinstance(sample, UserError):
            raise sample
        yield sample


def _collate(draws: Sequence[Mapping[str, Any] | UserError]) -> dict[str, Any] | UserError:
    for draw in draws:
        if isinstance(draw, UserError):
            return draw
    sizes = {tuple(draw["image"].shape[-2:]) for draw in draws}
    if len(sizes) > 1:
        return UsageError(
            f"The images of a batch have different sizes ({sorted(sizes)}); set transforms.train.crop_size=[height, "
            "width], or bs=1"
        )
    batch = {key: torch.stack([draw[key] for draw in draws]) for key in draws[0] if key != "targets"}
    if "targets" in draws[0]:
        batch["targets"] = [draw["targets"] for draw in draws]
    return batch


@lru_cache(maxsize=4)  # a batch may span two epochs
def _order(seed: int, epoch: int, num_samples: int) -> list[int]:
    generator = torch.Generator().manual_seed(mixed_seed(seed, ORDER_STREAM, epoch))
    return torch.randperm(num_samples, generator=generator).tolist()

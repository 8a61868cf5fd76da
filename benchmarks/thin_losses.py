"""Measures what Skeleton Recall and soft-clDice add to a training iteration of nnU-Net's 2-D U-Net, on one thread.

    python benchmarks/thin_losses.py --size 512 --iterations 10

An iteration is the augmentation of a batch of two, forward pass, loss, backward pass and update. Each row shows the
median CPU seconds of augmentation and step, and the total relative to Dice + cross-entropy. The losses take turns, so
that other work on the machine affects all alike.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from statistics import median

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np  # noqa: E402 - the number of threads must be set before numpy starts them
import torch  # noqa: E402

BATCH, CHANNELS = 2, 3
FEATURES = (32, 64, 128, 256, 512, 512, 512)
TUBES = {"skeleton_recall"}  # losses whose targets have tubes


def vessels(size: int, random: np.random.Generator) -> np.ndarray:
    """Draws random walks of 1 to 6 pixels in two classes, about as dense as the vessels of a fundus photograph."""
    from scipy.ndimage import grey_dilation

    labels = np.zeros((size, size), dtype=np.int16)
    for number in range(size // 8):
        walk = np.zeros_like(labels)
        position, angle = random.uniform(0, size, 2), random.uniform(0, 2 * np.pi)
        for _ in range(size // 2):
            angle += random.normal(0, 0.1)
            position = position + (np.sin(angle), np.cos(angle))
            if not ((position >= 0) & (position < size)).all():
                break
            walk[tuple(position.astype(int))] = 1 + number % 2
        width = int(random.choice([1, 2, 2, 3, 3, 4, 6]))
        labels = np.maximum(labels, grey_dilation(walk, size=(width, width)))
    return labels


class Training:
    """A U-Net that is trained with one loss."""

    def __init__(self, name: str, size: int) -> None:
        from dynamic_network_architectures.architectures.unet import PlainConvUNet

        from nnunetv2.training.data_augmentation.custom_transforms.tubes import followed_by_tubes
        from nnunetv2.training.data_augmentation.default_pipeline import training_transforms
        from nnunetv2.training.data_augmentation.patch_geometry import augmentation_geometry, deep_supervision_scales
        from nnunetv2.training.loss.default_loss import over_resolutions
        from nnunetv2.training.loss.loss_config import LabelTask
        from nnunetv2.utilities import extensions

        strides = [[1, 1], *[[2, 2]] * (len(FEATURES) - 1)]
        stages, task = len(FEATURES), LabelTask(3, False, None, True, False)
        scales, geometry = deep_supervision_scales(strides), augmentation_geometry((size, size))
        self.cut_size = tuple(geometry.initial_patch_size)
        self.augment = training_transforms((size, size), geometry.rotation, scales, geometry.mirror_axes, False)
        if name in TUBES:
            self.augment = followed_by_tubes(self.augment, task)
        extension = extensions.find("loss", name)
        self.loss = over_resolutions(extension.load()(extension.config()(), task), scales)
        self.network = PlainConvUNet(
            CHANNELS,
            stages,
            FEATURES,
            torch.nn.Conv2d,
            3,
            strides,
            2,
            3,
            2,
            conv_bias=True,
            norm_op=torch.nn.InstanceNorm2d,
            norm_op_kwargs={"affine": True},
            nonlin=torch.nn.LeakyReLU,
            deep_supervision=True,
        )
        self.optimizer = torch.optim.SGD(self.network.parameters(), 1e-2, momentum=0.99, nesterov=True)

    def batch(self, cases: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Augments each case."""
        samples = [self.augment(image=image.clone(), segmentation=labels.clone()) for image, labels in cases]
        targets = zip(*(sample["segmentation"] for sample in samples), strict=True)
        return torch.stack([sample["image"] for sample in samples]), [torch.stack(each) for each in targets]

    def step(self, data: torch.Tensor, target: list[torch.Tensor]) -> None:
        """Updates the weights once."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.network(data), target).backward()
        self.optimizer.step()


def cpu_seconds(run: Callable[[], object]) -> tuple[float, object]:
    """CPU time of a call, and its result."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of a patch in pixels (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=10, help="per loss (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = ("dice_ce", "skeleton_recall", "soft_cldice")
    trainings = {name: Training(name, args.size) for name in names}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for iteration in range(args.iterations + 1):
        random = np.random.default_rng(iteration)
        cut = max(trainings["dice_ce"].cut_size)
        labels = [torch.from_numpy(vessels(cut, random))[None] for _ in range(BATCH)]
        cases = [(torch.randn(CHANNELS, cut, cut) + each, each) for each in labels]
        for name, training in trainings.items():
            np.random.seed(iteration)  # the same augmentation for all
            torch.manual_seed(iteration)
            augmentation, (data, target) = cpu_seconds(partial(training.batch, cases))
            update, _ = cpu_seconds(partial(training.step, data, target))
            if iteration:  # the first one is a warm-up
                times[name].append((augmentation, update))
    totals = {name: median(sum(each) for each in of_loss) for name, of_loss in times.items()}
    print(f"{'loss':16} {'augmentation':>12} {'step':>8} {'total':>8}  relative")
    for name, of_loss in times.items():
        parts = [median(each[part] for each in of_loss) for part in (0, 1)]
        relative = totals[name] / totals["dice_ce"] - 1
        print(f"{name:16} {parts[0]:12.3f} {parts[1]:8.3f} {totals[name]:8.3f}  {relative:+.1%}")


if __name__ == "__main__":
    main()

"""The part of a global batch that one of several training processes makes."""

from __future__ import annotations

from nnunetv2.errors import UsageError


def share_of_batch(global_batch_size: int, oversample: float, rank: int, world_size: int) -> tuple[int, float]:
    """Batch size and foreground oversampling of one process.

    The loader forces foreground in the last samples of a batch: sample `i` of `n` where
    `i >= round(n * (1 - oversample))`. The samples of the global batch are dealt out in order, the first processes get
    one more when it does not divide evenly, and each process oversamples so that together they force the same samples
    as one process would. A single process keeps both numbers as they are.

    Args:
        global_batch_size: samples over all processes.
        oversample: share of the samples that must contain foreground, 0 to 1.
        rank: this process, counted from 0.

    Raises:
        UsageError: fewer samples than processes.
    """
    if world_size == 1:
        return global_batch_size, oversample
    if global_batch_size < world_size:
        raise UsageError(
            f"The batch size {global_batch_size} cannot be shared by {world_size} processes; "
            f"use -num_gpus {global_batch_size} or fewer (with torchrun: --nproc_per_node), or plans with a larger "
            f"batch_size"
        )
    base, remainder = divmod(global_batch_size, world_size)
    own = base + (rank < remainder)
    first = rank * base + min(rank, remainder)
    last = first + own
    if last / global_batch_size < 1 - oversample:
        return own, 0.0
    if first / global_batch_size > 1 - oversample:
        return own, 1.0
    first_forced = round(global_batch_size * (1 - oversample))
    return own, (last - max(first, min(first_forced, last))) / own

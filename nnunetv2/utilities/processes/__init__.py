"""Worker processes of nnU-Net: how they are started and limited, and how their failures are handled.

- `command_processes`: run a command in one process or in a group of several (`-num_gpus`, `torchrun`).
- `shared_prediction`: distribute cases over the processes of such a group, and share which ones failed.
- `case_pool`: map a function over all cases of a dataset (planning, preprocessing, evaluation, postprocessing); little
  work is done by this process alone.
- `worker_pool`: a few background calls at a time (preprocessing ahead of prediction, export after it).
- `case_failures`: collect errors of single cases in `failures.json`, so that the others still finish.

All workers are spawned, not forked, because threads and a CUDA context do not survive a fork. The exception are the
workers that augment training data, see `nnunetv2.training.dataloading.augmenters`. The parts independent of nnU-Net are
in `dinov3.utils.processes`.
"""

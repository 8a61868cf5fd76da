"""Worker processes of nnU-Net: who starts them, how many there are, and what happens when one fails or dies.

- `command_processes`: a command runs in one process or in a group of several (`-num_gpus`, `torchrun`).
- `shared_prediction`: the processes of such a group predict some of the cases each, and all know what failed.
- `case_pool`: one function over all cases of a dataset (planning, preprocessing, evaluation, postprocessing).
- `worker_pool`: a few calls at a time in the background (preprocessing ahead of a prediction, export behind it).
- `case_failures`: collects the errors of single cases in `failures.json`, so that the others are finished.

All of them spawn their workers; none forks, because threads and a CUDA context do not survive a fork. The workers that
augment training data are the exception, see `nnunetv2.training.dataloading.augmenters`. The parts that know nothing of
nnU-Net are in `dinov3.utils.processes`.
"""

"""Multi-process computation: launch, process groups, sharing of cores, and termination.

- `launch`: starts a group on this machine, watches it and reports which process died.
- `process_group`: joins the group that the environment describes, set by `launch` or `torchrun`.
- `process_end`: ends this process with the one that started it; writes a last line on SIGTERM.
- `cores`: counts the cores that this process may use, and limits its threads.
"""

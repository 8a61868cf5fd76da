"""Several processes as one computation: how they start, find each other, and end.

- `launch`: starts a group on this machine, watches it and reports which process died.
- `process_group`: joins the group that the environment describes, set by `launch` or `torchrun`.
- `parent_process`: ends this process with the one that started it.
- `process_end`: writes a last line when this process gets SIGTERM.
"""

"""Utilities shared by `dinov3` and `nnunetv2`: files, configuration, commands, processes, devices."""

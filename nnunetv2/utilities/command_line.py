"""Decorator of nnU-Net's console commands: one-line errors, exit codes, logging."""

from __future__ import annotations

import functools

from dinov3.utils import command_line

command = functools.partial(command_line.command, traceback_variable="nnUNet_traceback")

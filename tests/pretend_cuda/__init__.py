"""A CUDA device for machines without one: values are computed on the CPU, and waits of the host are counted.

It replaces parts of torch for the whole process, so tests use it in a process of their own, see `conftest.py`.
"""

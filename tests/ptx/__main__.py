"""python -m tests.ptx -k PATTERN: the smoke run for a GPU, its kernels in the emulator.

All structures take an hour of a core, most of it Triton's.
"""

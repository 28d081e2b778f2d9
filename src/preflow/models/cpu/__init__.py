"""Kernels for training on the CPU, behind one switch (``training.cpu_kernels``).

The only user of torch's private operators; nothing here may change a number beyond rounding.
"""

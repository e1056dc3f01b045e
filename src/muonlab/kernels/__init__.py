"""Triton kernels for a GPU, checked without one; no step uses them until they are measured."""

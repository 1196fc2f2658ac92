"""A CUDA without a GPU: the part of cuda-python that edgeface calls, strict about its rules."""

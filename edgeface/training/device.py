"""Where a run executes: device, threads, precision, and the processes of ``torchrun``."""

from __future__ import annotations

import os

import torch
from torch import distributed

from edgeface.errors import InvalidOptionError


def prepare(device: str, threads: int | None, seed: int) -> str:
    """Seed torch, limit its CPU threads, and resolve the device of this process.

    Args:
        device: "auto", "cpu", "cuda" (each process of ``torchrun`` takes its own GPU) or "cuda:N".
        threads: CPU threads of the net; None leaves torch's choice.
        seed: seed of the initial weights.

    Returns:
        The device for ``Settings``.

    Raises:
        InvalidOptionError: unknown device, or one that this machine does not have.
    """
    torch.manual_seed(seed)
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InvalidOptionError(
            f"expected device 'auto', 'cpu', 'cuda' or 'cuda:N' of this machine, got '{device}' "
            f"({str(error).splitlines()[0]})"
        ) from error
    return device


def is_first_process() -> bool:
    """Whether this process reports and writes: the only one, or the first of ``torchrun``."""
    return int(os.environ.get("RANK", 0)) == 0


def join_processes(device: str) -> tuple[int, int]:
    """Join the other processes of ``torchrun``; returns their number and this one's rank."""
    if not distributed.is_torchelastic_launched():
        return 1, 0
    if not distributed.is_initialized():
        on_gpu = device.startswith("cuda")
        if on_gpu:
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if on_gpu else "gloo")
    return distributed.get_world_size(), distributed.get_rank()


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32 here: on GPUs, and on CPUs with bf16 instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

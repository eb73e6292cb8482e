"""The arithmetic that a network computes in: what of it is not float32, and on which device.

published  as the rows were produced: on NVIDIA GPUs from Ampere on, convolutions take inputs of
           TF32 (8 bits of exponent, 10 of mantissa) and sum in float32; all else is float32
float32    no TF32 anywhere
bf16       convolutions and matrix products in bfloat16; norms, boundaries and losses in float32

On a CPU `published` and `float32` are the same. What TF32 is:
https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from actionformer.params.experiment import Precision

# the first compute capability with TF32
AMPERE = (8, 0)


def effective(precision: Precision, device: str) -> str:
    """What a device really computes in, as lineage names it."""
    if precision == "bf16":
        return "bf16"
    has_tf32 = device.startswith("cuda") and torch.cuda.get_device_capability(device) >= AMPERE
    return "TF32 convolutions" if precision == "published" and has_tf32 else "float32"


@contextmanager
def convolutions_in(precision: Precision) -> Iterator[None]:
    """Says which convolutions, forward and backward, may use TF32: PyTorch asks the process.

    And takes those alone that give the same bits every time: a run is a function of its seed.
    """
    backend = torch.backends.cudnn
    before = backend.allow_tf32, backend.deterministic
    backend.allow_tf32, backend.deterministic = precision == "published", True
    try:
        yield
    finally:
        backend.allow_tf32, backend.deterministic = before


def products_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Under `bf16`, products of a forward pass in bfloat16."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def float32_within(device: torch.device) -> AbstractContextManager[object]:
    """Float32 for a part of what `products_in` surrounds."""
    kind = device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)

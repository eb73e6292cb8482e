"""Training with torch.compile: crops in a few lengths, so that there are only a few programs.

Padding is safe: what stands beyond a video's last step and one step of every level changes nothing
(METHOD section 6).
"""

from __future__ import annotations

import os
import shutil
import sys

import torch.nn.functional as F

from actionformer.data.loader import Batch
from actionformer.errors import InputError
from actionformer.model.actionformer import ActionFormer

LENGTHS = 4
# of every length one for whole batches and one for the last, which may be smaller
PROGRAMS = 2 * LENGTHS
# random numbers as PyTorch draws them otherwise: a compiled run has the same dropout
OPTIONS: dict[str, str | int | bool] = {"fallback_random": True}


def compile_network(model: ActionFormer) -> None:
    """Compile backbone and heads, each length when it first comes; losses stay as they are.

    Raises:
        InputError: no C++ compiler, which torch.compile needs.
    """
    # the one that torch.compile looks for
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise InputError(
            f"training.compile needs a C++ compiler, and there is no {compiler}; install it, name "
            "another in CXX, or leave training.compile at false"
        )
    for part in (model.backbone, model.head):
        part.compile(dynamic=False, options=OPTIONS, recompile_limit=PROGRAMS)


def padded(batch: Batch, longest: int) -> Batch:
    """The batch, padded to the next of `LENGTHS` equal parts of the longest length."""
    length = batch.mask_BT.shape[1]
    part = -(-longest // LENGTHS)
    missing = -(-length // part) * part - length
    features_BTC = F.pad(batch.features_BCT.transpose(1, 2), (0, 0, 0, missing))
    return Batch(
        features_BTC.transpose(1, 2),
        F.pad(batch.mask_BT, (0, missing)),
        batch.segments,
        batch.labels,
    )

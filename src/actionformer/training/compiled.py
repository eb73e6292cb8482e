"""Training with torch.compile, on crops in a few lengths, so that there are only a few programs."""

from __future__ import annotations

import os
import shutil
import sys

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

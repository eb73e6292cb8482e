"""Checkpoints in the published form: OpenTAD's names and shapes, weights that are drawn.

They stand in for the checkpoints that were published with the rows, so that loading and evaluating
one runs in the demo, too. Nothing was trained: their scores mean nothing. The layout is transcribed
from the published state dicts (tests/oracles/*/state_dict.json), not made from our network.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from actionformer.files.writing import atomic_path
from actionformer.params.experiment import ModelParams

# name, shape and kind of a tensor
Entry = tuple[str, tuple[int, ...], str]
# kind of tensor -> what its values are spread around; 1 for the others
MEANS = {"weight": 0.0, "bias": 0.0, "cls_bias": round(-math.log(99), 2)}


def opentad_layout(params: ModelParams) -> Iterator[Entry]:
    """(name, shape, kind) of every tensor of OpenTAD's state dict for a network of these sizes."""
    C = params.channels

    def norm(name: str) -> Iterator[Entry]:
        yield f"{name}.weight", (C,), "norm_weight"
        yield f"{name}.bias", (C,), "bias"

    def conv(name: str, *shape: int, bias: str = "") -> Iterator[Entry]:
        yield f"{name}.weight", shape, "weight"
        if bias:
            yield f"{name}.bias", shape[:1], bias

    for i in range(params.embed_convs):
        yield from conv(f"projection.embed.{i}.conv", C, C if i else params.in_channels, 3)
        yield from norm(f"projection.embed.{i}.norm")
    for part, blocks in (("stem", params.stem_blocks), ("branch", params.branch_blocks)):
        for i in range(blocks):
            block = f"projection.{part}.{i}"
            yield from norm(f"{block}.ln1")
            yield from norm(f"{block}.ln2")
            for each in ("query", "key", "value"):
                yield from conv(f"{block}.attn.{each}_conv.conv", C, 1, 3)
                yield from norm(f"{block}.attn.{each}_norm")
                yield from conv(f"{block}.attn.{each}", C, C, 1, bias="bias")
            yield from conv(f"{block}.attn.proj", C, C, 1, bias="bias")
            yield from conv(f"{block}.mlp.0", 4 * C, C, 1, bias="bias")
            yield from conv(f"{block}.mlp.3", C, 4 * C, 1, bias="bias")
            for each in ("attn", "mlp"):
                yield f"{block}.drop_path_{each}.scale", (1, C, 1), "droppath_scale"
    for level in range(params.branch_blocks + 1):
        yield from norm(f"neck.fpn_norms.{level}")
        yield f"rpn_head.scale.{level}.scale", (), "scale"
    for tower in ("cls", "reg"):
        for i in range(params.head_convs):
            yield from conv(f"rpn_head.{tower}_convs.{i}.conv", C, C, 3)
            yield from norm(f"rpn_head.{tower}_convs.{i}.norm")
    yield from conv("rpn_head.cls_head", params.num_classes, C, 3, bias="cls_bias")
    yield from conv("rpn_head.reg_head", 2, C, 3, bias="bias")
    yield "rpn_head.loss_normalizer", (), "keep"


def write_checkpoint(path: Path, params: ModelParams) -> None:
    """A checkpoint as OpenTAD saves one.

    The averaged weights lie under "state_dict_ema", their names begin with "module.".
    """
    weights = {}
    for name, shape, kind in sorted(opentad_layout(params)):
        if kind == "keep":
            # whole until the first training step, as published
            weights[f"module.{name}"] = torch.tensor(int(params.loss_normalizer_init))
            continue
        # whole numbers over a power of two: the same bytes everywhere; spread as the oracles'
        # weights
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        drawn = rng.integers(-35, 36, shape) / np.float32(1024)
        values = np.asarray(drawn + np.float32(MEANS.get(kind, 1.0)), np.float32)
        weights[f"module.{name}"] = torch.from_numpy(values)
    buffer = io.BytesIO()
    torch.save({"epoch": 0, "state_dict_ema": weights}, buffer)
    with atomic_path(path) as part:
        part.write_bytes(buffer.getvalue())

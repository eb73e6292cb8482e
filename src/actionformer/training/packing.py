"""A training's state with its tensors end to end, as `checkpoint.pt` keeps it.

A small network has a thousand tensors of a few hundred bytes, with its average and its moments.
PyTorch takes four times as long to name each of them in a file as to write their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# where a tensor stands, as in ("optimizer", "state", 3, "exp_avg"); its kind of numbers; its shape
Place = tuple[tuple[str | int, ...], str, tuple[int, ...]]


def packed(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The content with one tensor for each kind of numbers, on the CPU."""
    places: list[Place] = []
    parts: dict[str, list[Tensor]] = {}

    def without_tensors(inside: Mapping[Any, Any], where: tuple[str | int, ...]) -> dict[Any, Any]:
        rest = {}
        for key, value in inside.items():
            if isinstance(value, Tensor):
                kind = str(value.dtype)
                places.append(((*where, key), kind, tuple(value.shape)))
                parts.setdefault(kind, []).append(value.detach().cpu().flatten())
            elif isinstance(value, Mapping):
                rest[key] = without_tensors(value, (*where, key))
            else:
                rest[key] = value
        return rest

    rest = without_tensors(content, ())
    tensors = {kind: torch.cat(flat) for kind, flat in parts.items()}
    return {"content": rest, "places": places, "tensors": tensors}


def is_packed(content: Mapping[str, Any]) -> bool:
    """Has `packed` made it?"""
    return set(content) == {"content", "places", "tensors"}


def unpacked(content: Mapping[str, Any], *, copy: bool = True) -> dict[Any, Any]:
    """What `packed` was given. Any exception means that `content` is not what `packed` makes.

    Args:
        copy: False leaves the numbers where they are, as in a file that is not read.
    """
    rest: dict[Any, Any] = content["content"]
    begin = dict.fromkeys(content["tensors"], 0)
    for where, kind, shape in content["places"]:
        end = begin[kind] + math.prod(shape)
        tensor = content["tensors"][kind][begin[kind] : end].view(shape)
        begin[kind] = end
        *outer, name = where
        inside = rest
        for key in outer:
            inside = inside[key]
        inside[name] = tensor.clone() if copy else tensor
    return rest

"""Reads the oracles: rebuilds their weights and inputs from the names they are drawn from."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actionformer import ActionFormer, Experiment, load_experiment
from actionformer.model.state_dict_adapter import to_opentad_name

ORACLES = Path(__file__).parent / "oracles"
ROW_OF = {
    "anet_tsp": "activitynet_tsp",
    "thumos_i3d": "thumos14_i3d",
    "epic_kitchens_slowfast_verb": "epic_verb_slowfast",
}


def experiment_of(config: str) -> Experiment:
    """Our paper row of a published config."""
    return load_experiment(ROW_OF.get(config, config), edition="paper")


def read(path: str) -> Any:
    return json.loads((ORACLES / path).read_text())


def arrays(path: str) -> Any:
    return np.load(ORACLES / path, allow_pickle=False)


def drawn(key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(key.encode()))


def masked_input(key: str, channels: int, length: int, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (B, C, T) and mask (B, T) of an oracle case."""
    features = drawn(key).standard_normal((len(lengths), channels, length)).astype(np.float32)
    mask = np.arange(length)[None] < np.array(lengths)[:, None]
    return torch.from_numpy(features * mask[:, None]), torch.from_numpy(mask)


def fill(model: ActionFormer, entries: list[dict[str, Any]]) -> None:
    """Give the network the oracle's weights; fails if names or shapes don't map one to one."""
    ours = {to_opentad_name(name): name for name in model.state_dict()}
    assert set(ours) == {entry["name"] for entry in entries}
    weights = {}
    for entry in entries:
        name, kind = ours[entry["name"]], entry["kind"]
        tensor = model.state_dict()[name]
        assert list(tensor.shape) == entry["shape"], name
        if kind != "keep":
            noise = np.float32(0.02) * drawn(entry["name"]).standard_normal(entry["shape"]).astype(np.float32)
            base = {"weight": 0, "bias": 0, "cls_bias": -math.log(99)}.get(kind, 1)
            tensor = torch.from_numpy(np.asarray(np.float32(base) + noise, np.float32))
        weights[name] = tensor
    model.load_state_dict(weights)


def without_randomness(params: Any) -> Any:
    return params.model_copy(update={"input_dropout": 0.0, "projection_dropout": 0.0, "drop_path": 0.0})

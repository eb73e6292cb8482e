"""Reads the oracles: rebuilds their weights and inputs from the names they are drawn from."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from actionformer import Experiment, load_experiment
from actionformer.model.state_dict_adapter import published_name
from actionformer.params.experiment import ModelParams

ORACLES = Path(__file__).parent / "oracles"
ROW_OF = {
    "anet_tsp": "activitynet_tsp",
    "thumos_i3d": "thumos14_i3d",
    "epic_kitchens_slowfast_verb": "epic_verb_slowfast",
}


def experiment_of(config: str) -> Experiment:
    """Our paper row of a published config."""
    return load_experiment(ROW_OF.get(config, config), edition="paper")


def row(config: str) -> dict[str, Any]:
    """The published hyperparameters of a config."""
    return yaml.safe_load((ORACLES / "rows.yaml").read_text())[ROW_OF.get(config, config)]


def read(path: str) -> Any:
    return json.loads((ORACLES / path).read_text())


def arrays(path: str) -> Any:
    return np.load(ORACLES / path, allow_pickle=False)


def drawn(key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(key.encode()))


def masked_input(
    key: str, channels: int, length: int, lengths: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (B, C, T) and mask (B, T) of an oracle case."""
    features = drawn(key).standard_normal((len(lengths), channels, length)).astype(np.float32)
    mask = np.arange(length)[None] < np.array(lengths)[:, None]
    return torch.from_numpy(features * mask[:, None]), torch.from_numpy(mask)


def published_weights(
    entries: list[dict[str, Any]], params: ModelParams
) -> dict[str, torch.Tensor]:
    """A published state dict, filled by the recipe.

    actionformer_release's is filled from the names that OpenTAD gives the same tensors.
    """
    weights = {}
    for entry in entries:
        if entry["kind"] == "keep":
            weights[entry["name"]] = torch.tensor(int(params.loss_normalizer_init))
            continue
        drawn_from = entry.get("opentad_name") or entry["name"]
        noise = np.float32(0.02) * drawn(drawn_from).standard_normal(entry["shape"]).astype(
            np.float32
        )
        base = {"weight": 0, "bias": 0, "cls_bias": -math.log(99)}.get(entry["kind"], 1)
        weights[entry["name"]] = torch.from_numpy(np.asarray(np.float32(base) + noise, np.float32))
    return weights


def trajectory_params(tag: str) -> ModelParams:
    """The small networks of the trajectories."""
    common: dict[str, Any] = {"in_channels": 64, "channels": 32, "drop_path": 0.0}
    common["max_seq_len"] = int(tag.rpartition("T")[2])
    if tag.startswith("local19"):
        return ModelParams(num_classes=20, attention_window=19, **common)
    return ModelParams(
        num_classes=7,
        embed_convs=3,
        stem_blocks=1,
        attention_window=(7, 7, 7, 7, 7, -1),
        absolute_position_embedding=True,
        label_smoothing=0.1,
        reg_loss_weight=2.0,
        keep_only_shortest_gt=False,
        **common,
    )


def opentad_name(name: str) -> str:
    return published_name(name, "opentad")


def release_name(name: str) -> str:
    return published_name(name, "actionformer_release")


def without_randomness(params: Any) -> Any:
    return params.model_copy(
        update={"input_dropout": 0.0, "projection_dropout": 0.0, "drop_path": 0.0}
    )

"""The demo edition: the files of all eight data sets, and of five "published" checkpoints."""

from __future__ import annotations

from pathlib import Path

from actionformer.params.files import load_experiment
from actionformer.synthetic.checkpoint import write_checkpoint
from actionformer.synthetic.writers import (
    charades,
    database_json,
    ego4d,
    epic,
    multithumos,
    thumos14,
)

# row -> file: one row per loader, and the one that two rows share
CHECKPOINTS = {
    "activitynet_tsp": "activitynet/checkpoints/activitynet_tsp.pth",
    "thumos14_i3d": "thumos14/checkpoints/thumos14_i3d.pth",
    "ego4d_slowfast": "ego4d/checkpoints/ego4d_slowfast.pth",
    "multithumos_i3d_rgb": "multithumos/checkpoints/multithumos.pth",
    "charades_i3d_rgb": "charades/checkpoints/charades_i3d_rgb.pth",
}


def write_data(root: Path) -> None:
    """The publishers' annotations, features and scores under `root`, as `data/demo` holds them."""
    labelled = thumos14.write_demo(root)
    multithumos.write_demo(root, labelled)
    database_json.write_activitynet_demo(root)
    database_json.write_hacs_demo(root)
    database_json.write_fineaction_demo(root)
    epic.write_demo(root)
    ego4d.write_demo(root)
    charades.write_demo(root)


def write_all(root: Path) -> None:
    """All that, and the checkpoints."""
    write_data(root)
    for row, file in CHECKPOINTS.items():
        write_checkpoint(root / file, load_experiment(row, "demo").model)

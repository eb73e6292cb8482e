"""Weights files as training writes them, without training."""

from __future__ import annotations

import torch

from actionformer import ActionFormer, load_experiment
from actionformer.training import checkpoint


def weights_file(folder, row="thumos14_i3d", edition="demo", **updates):
    """A model.pt of a row with drawn weights, sure enough of itself to detect something."""
    experiment = load_experiment(row, edition)
    torch.manual_seed(0)
    model = experiment.model.model_copy(update=updates)
    experiment = experiment.model_copy(update={"model": model})
    network = ActionFormer(model)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    count = experiment.dataset.num_classes
    if not isinstance(count, int):
        count = count[experiment.data.label_field]
    content = {
        "state_dict": network.state_dict(),
        "classes": [f"class {k}" for k in range(count)],
        "experiment": experiment.model_dump(mode="json"),
    }
    checkpoint.save(folder / "model.pt", content)
    return folder / "model.pt", experiment, network.eval()

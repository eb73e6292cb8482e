"""Weights in the layout of the Hugging Face Hub: model.safetensors beside config.json.

The layout is the one that the Hub's client writes and reads for models that are not in its own
libraries (https://huggingface.co/docs/huggingface_hub/guides/integrations): safetensors hold
tensors and nothing that could be run, config.json what the network is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.writing import write_bytes, write_json
from actionformer.model.actionformer import ActionFormer
from actionformer.params.experiment import Experiment
from actionformer.params.stored import stored_experiment
from actionformer.training.checkpoint import class_names, network_with

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_folder(
    folder: Path, network: ActionFormer, experiment: Experiment, classes: Sequence[str]
) -> None:
    """Write weights and what they belong to."""
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    # as bytes: of a full disk, safetensors says less than `write_bytes`
    write_bytes(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    config = {
        "model_type": "actionformer",
        "architectures": ["ActionFormer"],
        "classes": list(classes),
        "experiment": experiment.model_dump(mode="json"),
    }
    write_json(folder / CONFIG, config)


def load_folder(folder: Path) -> tuple[ActionFormer, Experiment, list[str]]:
    """The network with its weights, its experiment and its class names.

    Raises:
        InputError: a file that is missing, damaged or not of this project.
    """
    if not (folder / CONFIG).exists():
        raise InputError(f"{folder}: holds no model.pt, and no {CONFIG} beside {WEIGHTS}")
    config = read_object(folder / CONFIG, "experiment", "classes")
    experiment = stored_experiment(config["experiment"], str(folder / CONFIG))
    try:
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise InputError(f"{folder / WEIGHTS}: no such file; download it again") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / WEIGHTS}: not complete ({error}); download it again") from None
    network = network_with(tensors, experiment, str(folder / WEIGHTS))
    return network, experiment, class_names(config["classes"], str(folder / CONFIG))

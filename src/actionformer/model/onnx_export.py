"""The network as an ONNX file, and the check that it computes the same; B is 1 throughout."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from actionformer.errors import InputError
from actionformer.files.writing import atomic_path
from actionformer.model.actionformer import ActionFormer

OPSET = 18
# of scores, and of boundaries in strides of their level
TOLERANCE = 1e-4
OUTPUTS = ("segments", "scores", "valid")


class Decoded(nn.Module):
    """Features (B, C, T) and mask (B, T) -> what their detections are made from.

    Segments (B, P, 2) in steps, scores (B, P, K) and valid (B, P).
    """

    def __init__(self, network: ActionFormer) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        segments, scores, valid = [], [], []
        for level in self.network(features, mask):
            segments.append(level.segments_BT2())
            scores.append(level.logits_BTK.sigmoid())
            valid.append(level.mask_BT)
        return torch.cat(segments, 1), torch.cat(scores, 1), torch.cat(valid, 1)


def export(
    network: ActionFormer,
    path: Path,
    *,
    length: int,
    facts: Mapping[str, str],
    say: Callable[[str], None],
) -> float:
    """Write the network for videos of up to `length` steps; returns the largest difference from it.

    A shorter video is padded with zeros, and its mask says how long it is.

    Args:
        facts: go into the file's metadata.
        say: is told what is done: each part takes seconds.

    Raises:
        InputError: a length below 1, or a file that doesn't compute the same.
    """
    # large, and of use for this one command
    import onnx

    if length < 1:
        wanted = "expected the number of steps of the longest video"
        raise InputError(f"length {length}: {wanted}")
    decoded = Decoded(network.cpu()).eval()
    with warnings.catch_warnings(), atomic_path(path) as part:
        say(f"tracing the network at {length} steps: up to a minute")
        warnings.simplefilter("ignore")  # the exporter's own, about torch's inside
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            decoded,
            _example(network, length, valid=length),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=["features", "mask"],
            output_names=list(OUTPUTS),
            external_data=False,
        )
        assert program is not None
        model = program.model_proto
        onnx.helper.set_model_props(model, dict(facts))
        onnx.checker.check_model(model)
        part.write_bytes(model.SerializeToString())
        differences = []
        for valid in sorted({1, length // 2 + 1, length}):
            say(f"comparing it with the network on a video of {valid} steps")
            example = _example(network, length, valid=valid)
            differences.append(difference(decoded, part, example))
        worst = float(np.max(differences))
        if not worst < TOLERANCE:  # NaN is not
            found = f"the file differs from the network by {worst:.1e}"
            raise InputError(f"{path}: {found}, more than {TOLERANCE:g}")
    return worst


def difference(decoded: Decoded, path: Path, example: tuple[Tensor, Tensor]) -> float:
    """The largest difference at valid points between the network and its file in onnxruntime.

    Of scores, and of boundaries in strides of their level.
    """
    import onnxruntime

    with torch.inference_mode():
        segments, scores, valid = (output.numpy() for output in decoded(*example))
        strides = []
        for level in decoded.network(*example):
            strides.append(np.full(level.mask_BT.shape[1], level.stride))
    strides_P1 = np.concatenate(strides)[:, None]
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    feed = {"features": example[0].numpy(), "mask": example[1].numpy()}
    their_segments, their_scores, their_valid = session.run(list(OUTPUTS), feed)
    if (valid != their_valid).any():
        return float("inf")
    of_segments = (np.abs(segments - their_segments) / strides_P1)[valid]
    of_scores = np.abs(scores - their_scores)[valid]
    return float(np.max([of_segments.max(), of_scores.max()]))


def _example(network: ActionFormer, length: int, *, valid: int) -> tuple[Tensor, Tensor]:
    """Drawn features of a video of `valid` steps, padded to `length`."""
    generator = torch.Generator().manual_seed(0)
    mask_BT = torch.arange(length)[None] < valid
    features_BCT = torch.randn(1, network.params.in_channels, length, generator=generator)
    return features_BCT * mask_BT[:, None], mask_BT

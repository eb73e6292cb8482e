"""Published weights in our network: the names, shapes and arithmetic of both published layouts.

    opentad                OpenTAD 0.1.3: projection.*, neck.*, rpn_head.*
    actionformer_release   the authors' code: backbone.*, neck.*, cls_head.*, reg_head.*; LayerNorms are (1, C, 1)

Knows tensors, not files. In both, checkpoints hold the averaged weights with names that begin with "module.".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from actionformer.errors import InputError
from actionformer.experiment import ModelParams
from actionformer.model.actionformer import ActionFormer

Layout = Literal["opentad", "actionformer_release"]

_BLOCKS = [
    (r"\.attention\.(query|key|value)_conv\.", r".attn.\1_conv.conv."),
    (r"\.attention\.projection\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.norm_attention\.", ".ln1."),
    (r"\.norm_mlp\.", ".ln2."),
    (r"\.expand\.", ".mlp.0."),
    (r"\.contract\.", ".mlp.3."),
    (r"\.drop_path_attention\.", ".drop_path_attn."),
    (r"backbone\.level_norms\.", "neck.fpn_norms."),
]
# our names -> the published ones, applied in order
_NAMES: dict[Layout, list[tuple[str, str]]] = {
    "opentad": [
        *_BLOCKS,
        (r"backbone\.embedding\.", "projection.embed."),
        (r"backbone\.(stem|branch)\.", r"projection.\1."),
        (r"head\.classification\.", "rpn_head.cls_convs."),
        (r"head\.regression\.", "rpn_head.reg_convs."),
        (r"head\.class_predictor\.", "rpn_head.cls_head."),
        (r"head\.offset_predictor\.", "rpn_head.reg_head."),
        (r"head\.scales\.", "rpn_head.scale."),
        (r"^loss_normalizer$", "rpn_head.loss_normalizer"),
    ],
    "actionformer_release": [
        *_BLOCKS,
        (r"backbone\.embedding\.(\d+)\.conv\.", r"backbone.embd.\1.conv."),
        (r"backbone\.embedding\.(\d+)\.norm\.", r"backbone.embd_norm.\1."),
        (r"head\.classification\.(\d+)\.conv\.", r"cls_head.head.\1.conv."),
        (r"head\.classification\.(\d+)\.norm\.", r"cls_head.norm.\1."),
        (r"head\.regression\.(\d+)\.conv\.", r"reg_head.head.\1.conv."),
        (r"head\.regression\.(\d+)\.norm\.", r"reg_head.norm.\1."),
        (r"head\.class_predictor\.", "cls_head.cls_head.conv."),
        (r"head\.offset_predictor\.", "reg_head.offset_head.conv."),
        (r"head\.scales\.", "reg_head.scale."),
    ],
}
# where a layout's names begin
_ROOTS: dict[Layout, tuple[str, ...]] = {
    "opentad": ("projection.", "neck.", "rpn_head."),
    "actionformer_release": ("backbone.", "neck.", "cls_head.", "reg_head."),
}


def published_name(name: str, layout: Layout) -> str:
    """A layout's name of one of our tensors; the release keeps no `loss_normalizer`."""
    for ours, theirs in _NAMES[layout]:
        name = re.sub(ours, theirs, name)
    return name


def published_layout(state_dict: Mapping[str, Tensor]) -> Layout:
    """Which implementation wrote a state dict.

    Raises:
        InputError: neither; names the first tensor that belongs to no layout.
    """
    names = [str(name).removeprefix("module.") for name in state_dict]
    if not names:
        raise InputError("not a published ActionFormer: no tensors in it")
    # `neck.` is common to both
    of_opentad = any(name.startswith(("projection.", "rpn_head.")) for name in names)
    layout: Layout = "opentad" if of_opentad else "actionformer_release"
    stranger = next((name for name in names if not name.startswith(_ROOTS[layout])), None)
    if stranger is not None:
        raise InputError(
            f"not a published ActionFormer: tensor '{stranger}' belongs to neither OpenTAD's nor the authors' layout"
        )
    return layout


def params_for_layout(params: ModelParams, layout: Layout) -> ModelParams:
    """The same model with the arithmetic of the implementation that wrote the layout (docs/differences.md)."""
    if layout == "opentad":
        return params.model_copy(update={"conv_norm_eps": 1e-6, "mask_after_norm": True})
    # the release has no switch for the classes of similar segments: it keeps those of the shortest only
    return params.model_copy(update={"conv_norm_eps": 1e-5, "mask_after_norm": False, "keep_only_shortest_gt": True})


def from_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from a published one of either layout, with or without "module." before the names.

    Raises:
        InputError: a tensor that is missing, has another shape than the rest of the network asks for, or has no
            counterpart in ActionFormer; names the first.
    """
    layout = published_layout(state_dict)
    theirs = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    if len(theirs) < len(state_dict):
        twice = next(name for name in theirs if name in state_dict and f"module.{name}" in state_dict)
        raise InputError(f"published weights: tensor '{twice}' is there with and without 'module.'")
    network = _network_of(theirs, layout)
    norms = {name for name, module in network.named_modules() if isinstance(module, nn.LayerNorm)}
    result = {}
    for name, ours in network.state_dict().items():
        if name == "loss_normalizer" and layout == "actionformer_release":
            continue
        published = published_name(name, layout)
        if published not in theirs:
            raise InputError(f"published weights: tensor '{published}' is missing")
        shape = tuple(ours.shape)
        if layout == "actionformer_release" and name.rpartition(".")[0] in norms:
            shape = (1, *shape, 1)
        tensor = theirs.pop(published)
        if tuple(tensor.shape) != shape:
            raise InputError(
                f"published weights: tensor '{published}' has shape {tuple(tensor.shape)}, the others ask for {shape}"
            )
        if not torch.isfinite(tensor).all():
            raise InputError(f"published weights: tensor '{published}' has NaN or infinite values")
        # the normaliser is an integer until the first training step
        result[name] = tensor.reshape(ours.shape).to(torch.float32)
    if theirs:
        raise InputError(f"published weights: tensor '{next(iter(theirs))}' has no counterpart in ActionFormer")
    return result


def why_not_fitting(params: ModelParams, state_dict: Mapping[str, Tensor]) -> str:
    """The first tensor, by its published name, in which published weights and a model differ in size; '' if they fit.

    Raises:
        InputError: as `from_published`.
    """
    layout, weights = published_layout(state_dict), from_published(state_dict)
    with torch.device("meta"):
        expected = ActionFormer(params).state_dict()
    for name in [*expected, *(name for name in weights if name not in expected)]:
        if name != "loss_normalizer":
            found, wanted = (str(tuple(p[name].shape)) if name in p else "no such tensor" for p in (weights, expected))
            if found != wanted:
                tensor = published_name(name, layout)
                return (
                    f"the first tensor that doesn't fit is '{tensor}': the checkpoint has {found}, the model {wanted}"
                )
    return ""


def published_model(params: ModelParams, state_dict: Mapping[str, Tensor]) -> ActionFormer:
    """The network of published weights, with the arithmetic that they were trained with, in evaluation mode.

    Raises:
        InputError: as `from_published`, or weights of a model of other sizes; names the first tensor.
    """
    misfit = why_not_fitting(params, state_dict)
    if misfit:
        raise InputError(f"published weights: {misfit}")
    model = ActionFormer(params_for_layout(params, published_layout(state_dict)))
    model.load_state_dict(from_published(state_dict))
    return model.eval()


def _network_of(theirs: Mapping[str, Tensor], layout: Layout) -> ActionFormer:
    """The network, without storage, whose sizes these tensors tell."""

    def shape(ours: str) -> tuple[int, ...]:
        name = published_name(ours, layout)
        if name not in theirs:
            raise InputError(f"published weights: tensor '{name}' is missing")
        if theirs[name].ndim != 3:
            raise InputError(
                f"published weights: tensor '{name}' has shape {tuple(theirs[name].shape)}, expected 3 axes"
            )
        return tuple(theirs[name].shape)

    def count(*ours: str) -> int:
        """How many of a repeated part there are: one more than the highest index that occurs in any of its tensors."""
        patterns = [re.escape(published_name(name.format(i="0"), layout)).replace("0", r"(\d+)", 1) for name in ours]
        found = [re.fullmatch(pattern, name) for pattern in patterns for name in theirs]
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    channels, in_channels, _ = shape("backbone.embedding.0.conv.weight")
    branch_blocks = count("backbone.branch.{i}.norm_attention.weight", "backbone.branch.{i}.norm_mlp.weight")
    params = ModelParams(
        in_channels=in_channels,
        num_classes=shape("head.class_predictor.weight")[0],
        channels=channels,
        embed_convs=max(1, count("backbone.embedding.{i}.conv.weight", "backbone.embedding.{i}.norm.weight")),
        stem_blocks=count("backbone.stem.{i}.norm_attention.weight", "backbone.stem.{i}.norm_mlp.weight"),
        branch_blocks=branch_blocks,
        heads=1,
        head_convs=count("head.classification.{i}.conv.weight", "head.regression.{i}.conv.weight"),
        max_seq_len=2**branch_blocks,
        regression_range=((0, 10000),) * (branch_blocks + 1),
    )
    with torch.device("meta"):
        return ActionFormer(params)

"""Published weights in our network: the names, shapes and arithmetic of both published layouts.

    opentad                OpenTAD 0.1.3: projection.*, neck.*, rpn_head.*
    actionformer_release   the authors' code: backbone.*, neck.*, cls_head.*, reg_head.*;
                           LayerNorms are (1, C, 1)

Knows tensors, not files. In both, checkpoints hold the averaged weights, with names that begin with
"module.".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from actionformer.errors import InputError
from actionformer.model.actionformer import ActionFormer
from actionformer.params.experiment import ModelParams

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
    for name in names:
        if not name.startswith(_ROOTS[layout]):
            stranger = f"tensor '{name}' belongs to neither OpenTAD's nor the authors' layout"
            raise InputError(f"not a published ActionFormer: {stranger}")
    return layout


def params_for_layout(params: ModelParams, layout: Layout) -> ModelParams:
    """The same model with the arithmetic of who wrote the layout (docs/differences.md)."""
    if layout == "opentad":
        return params.model_copy(update={"conv_norm_eps": 1e-6, "mask_after_norm": True})
    # the release has no switch for the classes of similar segments: it keeps the shortest's only
    released = {"conv_norm_eps": 1e-5, "mask_after_norm": False, "keep_only_shortest_gt": True}
    return params.model_copy(update=released)


def from_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from a published one, with or without "module." before the names.

    Raises:
        InputError: a tensor that is missing, has another shape than the rest of the network asks
            for, or has no counterpart in ActionFormer; names the first.
    """
    layout = published_layout(state_dict)
    theirs = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    if len(theirs) < len(state_dict):
        _refuse_twins(theirs, state_dict)
    network = _network_of(theirs, layout)
    norms = {name for name, part in network.named_modules() if isinstance(part, nn.LayerNorm)}
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
        found = tuple(tensor.shape)
        if found != shape:
            wrong = f"tensor '{published}' has shape {found}, the others ask for {shape}"
            raise InputError(f"published weights: {wrong}")
        if not torch.isfinite(tensor).all():
            raise InputError(f"published weights: tensor '{published}' has NaN or infinite values")
        # the normaliser is an integer until the first training step
        result[name] = tensor.reshape(ours.shape).to(torch.float32)
    if theirs:
        stranger = next(iter(theirs))
        raise InputError(
            f"published weights: tensor '{stranger}' has no counterpart in ActionFormer"
        )
    return result


def _refuse_twins(theirs: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]) -> None:
    for name in theirs:
        if name in state_dict and f"module.{name}" in state_dict:
            twice = f"tensor '{name}' is there with and without 'module.'"
            raise InputError(f"published weights: {twice}")


def why_not_fitting(params: ModelParams, state_dict: Mapping[str, Tensor]) -> str:
    """The first tensor in which published weights and a model differ in size; '' if they fit.

    Named as published.

    Raises:
        InputError: as `from_published`.
    """
    layout, weights = published_layout(state_dict), from_published(state_dict)
    with torch.device("meta"):
        expected = ActionFormer(params).state_dict()
    for name in dict.fromkeys([*expected, *weights]):
        if name == "loss_normalizer":
            continue
        found, wanted = _shape_of(weights, name), _shape_of(expected, name)
        if found != wanted:
            tensor = f"the first tensor that doesn't fit is '{published_name(name, layout)}'"
            return f"{tensor}: the checkpoint has {found}, the model {wanted}"
    return ""


def _shape_of(weights: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(weights[name].shape)) if name in weights else "no such tensor"


def published_model(params: ModelParams, state_dict: Mapping[str, Tensor]) -> ActionFormer:
    """The network of published weights, with their arithmetic, in evaluation mode.

    Raises:
        InputError: as `from_published`, or weights of a model of other sizes; names the first
            tensor.
    """
    misfit = why_not_fitting(params, state_dict)
    if misfit:
        raise InputError(f"published weights: {misfit}")
    model = ActionFormer(params_for_layout(params, published_layout(state_dict)))
    model.load_state_dict(from_published(state_dict))
    return model.eval()


# ------------------------------------------------------------------------ sizes from their tensors

# param -> tensors of which every one of its parts has one
_REPEATED = {
    "embed_convs": (
        "backbone.embedding.{}.conv.weight",
        "backbone.embedding.{}.norm.weight",
    ),
    "stem_blocks": (
        "backbone.stem.{}.norm_attention.weight",
        "backbone.stem.{}.norm_mlp.weight",
    ),
    "branch_blocks": (
        "backbone.branch.{}.norm_attention.weight",
        "backbone.branch.{}.norm_mlp.weight",
    ),
    "head_convs": (
        "head.classification.{}.conv.weight",
        "head.regression.{}.conv.weight",
    ),
}


def _network_of(theirs: Mapping[str, Tensor], layout: Layout) -> ActionFormer:
    """The network, without storage, whose sizes these tensors tell."""
    first_conv = _shape_of_conv(theirs, "backbone.embedding.0.conv.weight", layout)
    predictor = _shape_of_conv(theirs, "head.class_predictor.weight", layout)
    channels, in_channels, _ = first_conv
    branch_blocks = _count(theirs, "branch_blocks", layout)
    params = ModelParams(
        in_channels=in_channels,
        num_classes=predictor[0],
        channels=channels,
        embed_convs=max(1, _count(theirs, "embed_convs", layout)),
        stem_blocks=_count(theirs, "stem_blocks", layout),
        branch_blocks=branch_blocks,
        heads=1,
        head_convs=_count(theirs, "head_convs", layout),
        max_seq_len=2**branch_blocks,
        regression_range=((0, 10000),) * (branch_blocks + 1),
    )
    with torch.device("meta"):
        return ActionFormer(params)


def _shape_of_conv(theirs: Mapping[str, Tensor], ours: str, layout: Layout) -> tuple[int, ...]:
    """Output channels, input channels and kernel of one of our convolutions."""
    name = published_name(ours, layout)
    if name not in theirs:
        raise InputError(f"published weights: tensor '{name}' is missing")
    shape = tuple(theirs[name].shape)
    if len(shape) != 3:
        raise InputError(f"published weights: tensor '{name}' has shape {shape}, expected 3 axes")
    return shape


def _count(theirs: Mapping[str, Tensor], repeated: str, layout: Layout) -> int:
    """How many of a repeated part there are: one more than the highest index in a name."""
    count = 0
    for ours in _REPEATED[repeated]:
        # the part's index lies between what stands before and after it
        before, after = published_name(ours.format(0), layout).split("0", 1)
        for name in theirs:
            index = name.removeprefix(before).removesuffix(after)
            if name == f"{before}{index}{after}" and index.isdecimal():
                count = max(count, int(index) + 1)
    return count

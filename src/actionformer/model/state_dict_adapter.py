"""Published checkpoints in our names, and ours in the published ones. Knows names and shapes, not files.

Two layouts are published:

    opentad               OpenTAD 0.1.3: `projection.*`, `neck.*`, `rpn_head.*`
    actionformer_release  the authors' code: `backbone.*`, `neck.*`, `cls_head.*`, `reg_head.*`; LayerNorms [1, C, 1]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

Layout = Literal["opentad", "actionformer_release"]

# our name -> OpenTAD's, tried in order on the whole name
_OPENTAD = [
    (r"backbone\.embedding\.", "projection.embed."),
    (r"backbone\.(stem|branch)\.", r"projection.\1."),
    (r"\.attention\.(query|key|value)_conv\.", r".attn.\1_conv.conv."),
    (r"\.attention\.projection\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.norm_attention\.", ".ln1."),
    (r"\.norm_mlp\.", ".ln2."),
    (r"\.expand\.", ".mlp.0."),
    (r"\.contract\.", ".mlp.3."),
    (r"\.drop_path_attention\.", ".drop_path_attn."),
    (r"backbone\.level_norms\.", "neck.fpn_norms."),
    (r"head\.classification\.", "rpn_head.cls_convs."),
    (r"head\.regression\.", "rpn_head.reg_convs."),
    (r"head\.class_predictor\.", "rpn_head.cls_head."),
    (r"head\.offset_predictor\.", "rpn_head.reg_head."),
    (r"head\.scales\.", "rpn_head.scale."),
    (r"^loss_normalizer$", "rpn_head.loss_normalizer"),
]


def to_opentad_name(name: str) -> str:
    """OpenTAD's name of one of our tensors."""
    for ours, theirs in _OPENTAD:
        name = re.sub(ours, theirs, name)
    return name


def to_opentad(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under OpenTAD's names."""
    return {to_opentad_name(name): tensor for name, tensor in state_dict.items()}

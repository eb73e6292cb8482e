"""The published names of our tensors: OpenTAD 0.1.3 has `projection.*`, `neck.*` and `rpn_head.*`. Names, not files."""

from __future__ import annotations

import re

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

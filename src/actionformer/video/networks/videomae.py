"""VideoMAE's vision transformer, v1 and v2, as transformers has it.

Tong et al. 2022, arXiv:2203.12602; Wang et al. 2023 (v2), arXiv:2303.16727. Weights in the layout
of the authors' own code, which v2 and InternVideo publish, are brought into transformers'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEModel

from actionformer.params.extractor import VideoMAE as VideoMAEParams

# the authors'; the config of Hugging Face's files says 1e-12
EPS = 1e-6
# what a file of weights holds beside, and features do without
HEAD = ("head.", "classifier.", "decoder.", "mask_token", "encoder_to_decoder.")


class VideoMAE(nn.Module):
    """Clips (B, 3, T, H, W) -> features (B, width): the normalised mean of the last tokens."""

    def __init__(self, params: VideoMAEParams, *, frames: int, crop: int) -> None:
        super().__init__()
        config = VideoMAEConfig(
            image_size=crop,
            patch_size=params.patch,
            tubelet_size=params.tubelet,
            num_frames=frames,
            hidden_size=params.width,
            num_hidden_layers=params.depth,
            num_attention_heads=params.heads,
            intermediate_size=params.mlp_width,
            layer_norm_eps=EPS,
            use_mean_pooling=True,
        )
        self.videomae = VideoMAEModel(config)
        self.fc_norm = nn.LayerNorm(params.width, eps=EPS)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        tokens_BNC = self.videomae(clips_BCTHW.transpose(1, 2)).last_hidden_state
        features_BC: Tensor = self.fc_norm(tokens_BNC.mean(1))
        return features_BC


# the authors' names -> transformers'
_ORIGINAL = (
    (r"^patch_embed\.proj\.", "videomae.embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.norm1\.", r"videomae.encoder.layer.\1.layernorm_before."),
    (r"^blocks\.(\d+)\.norm2\.", r"videomae.encoder.layer.\1.layernorm_after."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"videomae.encoder.layer.\1.attention.output.dense."),
    (r"^blocks\.(\d+)\.attn\.q_bias", r"videomae.encoder.layer.\1.attention.attention.query.bias"),
    (r"^blocks\.(\d+)\.attn\.v_bias", r"videomae.encoder.layer.\1.attention.attention.value.bias"),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"videomae.encoder.layer.\1.intermediate.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"videomae.encoder.layer.\1.output.dense."),
    # of models that were not fine-tuned: the norm after the last block
    (r"^norm\.", "fc_norm."),
)


def from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a file of the Hub, under the names that transformers gives them by now."""
    renamed = {}
    for name, tensor in weights.items():
        for part, letter in (("query", "q"), ("value", "v")):
            name = name.replace(
                f"attention.attention.{letter}_bias", f"attention.attention.{part}.bias"
            )
        renamed[name] = tensor
    return renamed


def from_original(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under transformers' names; queries, keys and values, which lie together, apart."""
    renamed = {}
    for name, tensor in weights.items():
        together = re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.weight", name)
        if together is not None:
            attention = f"videomae.encoder.layer.{together[1]}.attention.attention"
            parts = zip(("query", "key", "value"), torch.chunk(tensor, 3), strict=True)
            for part, weight in parts:
                renamed[f"{attention}.{part}.weight"] = weight
            continue
        for pattern, new in _ORIGINAL:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor
    return renamed

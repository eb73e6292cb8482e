"""SlowFast: a slow pathway of many channels beside a fast one of few, which feeds it.

Feichtenhofer et al.: SlowFast Networks for Video Recognition, ICCV 2019, arXiv:1812.03982. Names of
weights are PySlowFast's; `from_pytorchvideo` turns those of PyTorchVideo into them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionformer.params.extractor import SlowFast as SlowFastParams

# of both pathways together
DIM = 2048 + 256
# what a file of weights holds beside, and features do without
HEAD = ("head.",)
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# frames that the first convolution of a block looks at, stage by stage
SLOW_KERNELS, FAST_KERNELS = (1, 1, 3, 3), (3, 3, 3, 3)
# channels that go from the fast to the slow pathway, to one of the fast
FUSED = 2


class SlowFast(nn.Module):
    """Clips (B, 3, T, H, W) -> features (B, 2304): means of the slow and of the fast pathway.

    T is a multiple of `alpha`.
    """

    def __init__(self, params: SlowFastParams) -> None:
        super().__init__()
        self.params = params
        beta, alpha = params.beta_inverse, params.alpha
        self.s1 = nn.ModuleDict()
        self.s1["pathway0_stem"] = Stem(64, kernel=1)
        self.s1["pathway1_stem"] = Stem(64 // beta, kernel=5)
        self.s1_fuse = Fuse(64 // beta, params.fusion_kernel, alpha)
        slow, fast = 64, 64 // beta
        for stage, blocks in enumerate(BLOCKS[params.depth]):
            width = 64 << stage
            layers = nn.ModuleDict()
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                # what the fast pathway adds to the first block's input
                more = FUSED * fast if i == 0 else 0
                layers[f"pathway0_res{i}"] = Block(
                    slow + more, width, 4 * width, SLOW_KERNELS[stage], stride
                )
                layers[f"pathway1_res{i}"] = Block(
                    fast, width // beta, 4 * width // beta, FAST_KERNELS[stage], stride
                )
                slow, fast = 4 * width, 4 * width // beta
            self.add_module(f"s{stage + 2}", layers)
            if stage < 3:
                fuse = Fuse(fast, params.fusion_kernel, alpha)
                self.add_module(f"s{stage + 2}_fuse", fuse)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        frames = clips_BCTHW.shape[2]
        if frames % self.params.alpha:
            raise ValueError(f"{frames} frames, expected a multiple of {self.params.alpha}")
        # as published: evenly from the first frame to the last
        chosen = torch.linspace(0, frames - 1, frames // self.params.alpha).long()
        slow = self.s1["pathway0_stem"](clips_BCTHW[:, :, chosen])
        fast = self.s1["pathway1_stem"](clips_BCTHW)
        slow = self.s1_fuse(slow, fast)
        for stage in range(2, 6):
            for name, block in getattr(self, f"s{stage}").named_children():
                if name.startswith("pathway0"):
                    slow = block(slow)
                else:
                    fast = block(fast)
            if stage < 5:
                slow = getattr(self, f"s{stage}_fuse")(slow, fast)
        means = (slow.mean((2, 3, 4)), fast.mean((2, 3, 4)))
        return torch.cat(means, dim=1)


class Stem(nn.Module):
    """First convolution of a pathway, and a maximum over 3 x 3 pixels."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        padding = (kernel // 2, 3, 3)
        self.conv = nn.Conv3d(3, channels, (kernel, 7, 7), (1, 2, 2), padding, bias=False)
        self.bn = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        return F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))


class Fuse(nn.Module):
    """Brings the fast pathway to the slow one's rate, and puts it beside."""

    def __init__(self, channels: int, kernel: int, alpha: int) -> None:
        super().__init__()
        self.conv_f2s = nn.Conv3d(
            channels,
            FUSED * channels,
            (kernel, 1, 1),
            (alpha, 1, 1),
            (kernel // 2, 0, 0),
            bias=False,
        )
        self.bn = nn.BatchNorm3d(FUSED * channels)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        return torch.cat([slow, F.relu(self.bn(self.conv_f2s(fast)))], dim=1)


class Block(nn.Module):
    """A bottleneck beside a shortcut; the 3 x 3 convolution in its middle has the stride."""

    def __init__(self, inputs: int, inner: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.branch1: nn.Module | None = None
        if inputs != outputs or stride > 1:
            self.branch1 = nn.Conv3d(inputs, outputs, 1, (1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(outputs)
        across_time = nn.Conv3d(
            inputs, inner, (kernel, 1, 1), padding=(kernel // 2, 0, 0), bias=False
        )
        across_space = nn.Conv3d(
            inner, inner, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False
        )
        self.branch2 = nn.ModuleDict(
            {
                "a": across_time,
                "a_bn": nn.BatchNorm3d(inner),
                "b": across_space,
                "b_bn": nn.BatchNorm3d(inner),
                "c": nn.Conv3d(inner, outputs, 1, bias=False),
                "c_bn": nn.BatchNorm3d(outputs),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.branch1 is not None:
            shortcut = self.branch1_bn(self.branch1(x))
        inner = self.branch2
        x = F.relu(inner["a_bn"](inner["a"](x)))
        x = F.relu(inner["b_bn"](inner["b"](x)))
        x = inner["c_bn"](inner["c"](x))
        return F.relu(x + shortcut)


# PyTorchVideo's names -> PySlowFast's; stage 0 is the stem, 1 to 4 are stages of blocks
_PYTORCHVIDEO = (
    (r"blocks\.0\.multipathway_blocks\.(\d)\.conv\.", r"s1.pathway\1_stem.conv."),
    (r"blocks\.0\.multipathway_blocks\.(\d)\.norm\.", r"s1.pathway\1_stem.bn."),
    (r"multipathway_fusion\.conv_fast_to_slow\.", r"conv_f2s."),
    (r"multipathway_fusion\.norm\.", r"bn."),
    (r"multipathway_blocks\.(\d)\.res_blocks\.(\d+)\.", r"pathway\1_res\2."),
    (r"branch1_conv\.", r"branch1."),
    (r"branch1_norm\.", r"branch1_bn."),
    (r"branch2\.conv_([abc])\.", r"branch2.\1."),
    (r"branch2\.norm_([abc])\.", r"branch2.\1_bn."),
)


def from_pytorchvideo(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under PySlowFast's names."""
    renamed = {}
    for name, tensor in weights.items():
        for pattern, new in _PYTORCHVIDEO:
            name = re.sub(pattern, new, name)
        block = re.match(r"blocks\.(\d)\.(.*)", name)
        if block is not None and int(block[1]) < 5:
            stage, rest = int(block[1]) + 1, block[2]
            is_fusion = rest.startswith(("conv_f2s.", "bn."))
            name = f"s{stage}_fuse.{rest}" if is_fusion else f"s{stage}.{rest}"
        elif block is not None:
            name = f"head.{block[2]}"
        renamed[name] = tensor
    return renamed

"""Params of an extractor: how a video's frames become its features.

`params/extractors/*.yaml` are files of this form; `params.files` reads them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from actionformer.files.md5 import digest
from actionformer.params.dataset import File, Params, Within

# raised where the code makes other features of the same frames and weights: they are made again
ARITHMETIC = 2

Channels = tuple[float, float, float]
FrameAt = Literal["nearest", "before"]
Decoder = Literal["pyav", "torchcodec"]


class I3D(Params):
    """Inflated Inception-V1 on RGB (Carreira, Zisserman 2017, arXiv:1705.07750)."""

    name: Literal["i3d"] = "i3d"


class SlowFast(Params):
    """A slow pathway beside a fast one (Feichtenhofer et al. 2019, arXiv:1812.03982)."""

    name: Literal["slowfast"] = "slowfast"
    depth: Literal[50, 101] = 50
    alpha: int = Field(4, gt=0, description="frames of the fast pathway to one of the slow one")
    beta_inverse: int = Field(8, gt=0, description="channels of the slow pathway to one of fast")
    fusion_kernel: int = Field(7, gt=0, description="frames of the lateral convolutions")
    layout: Literal["pyslowfast", "pytorchvideo"] = Field(
        "pyslowfast", description="how the file of weights calls them"
    )


class R2Plus1D(Params):
    """ResNet of factorised convolutions (Tran et al. 2018, arXiv:1711.11248), 34 layers."""

    name: Literal["r2plus1d"] = "r2plus1d"


class VideoMAE(Params):
    """Vision transformer on tubes of pixels (Tong et al. 2022, arXiv:2203.12602), also v2's."""

    name: Literal["videomae"] = "videomae"
    width: int = Field(gt=0)
    depth: int = Field(gt=0, description="blocks")
    heads: int = Field(gt=0)
    mlp_width: int = Field(gt=0)
    patch: int = Field(16, gt=0, description="pixels of a patch, a side")
    tubelet: int = Field(2, gt=0, description="frames of a patch")
    layout: Literal["original", "hugging_face"] = Field(
        "original", description="how the file of weights calls them"
    )


class Torchvision(Params):
    """A network of torchvision's, in its own layout of weights."""

    name: Literal["torchvision"] = "torchvision"
    model: Literal["s3d", "mvit_v2_s", "swin3d_b"]


Network = Annotated[I3D | SlowFast | R2Plus1D | VideoMAE | Torchvision, Field(discriminator="name")]


class Extractor(Params):
    """How frames become features: which are looked at, how they are cut, and by what network."""

    network: Network
    weights: Within = Field(description="the file of weights, under data/extractors/")
    file: File = Field(description="where the weights come from, and their licence")
    state: tuple[str, ...] = Field(
        (),
        description="keys under which the file holds the weights, such as model_state; none: the "
        "file is the mapping of names to tensors itself",
    )
    prefix: str = Field("", description="what stands before every name of a weight")
    dim: int = Field(gt=0, description="channels of the features")
    fps: float | None = Field(
        None, ge=0.01, description="frames per second that videos are brought to; null: their own"
    )
    frame_at: FrameAt = Field(
        "nearest",
        description="which frame of a video at another rate: as ffmpeg's filter `fps`, every frame "
        "goes to the nearest time, and of several the last is seen; or the last one that has begun "
        "by the time that is wanted",
    )
    decoder: Decoder = Field(
        "pyav", description="what decodes videos; torchcodec is an extra (docs/video.md)"
    )
    clip_frames: int = Field(gt=0, description="frames that the network sees at once")
    frame_step: int = Field(1, gt=0, description="from one frame of a clip to its next")
    stride_frames: int = Field(gt=0, description="frames from one clip to the next")
    resize: int | tuple[int, int] = Field(
        description="pixels of the shorter side, or (height, width)"
    )
    antialias: bool = Field(
        True,
        description="where pictures become smaller, all pixels count; false: the nearest four "
        "alone, as in torch's interpolate",
    )
    crop: int = Field(gt=0, description="pixels of the square in the middle that is looked at")
    mean: Channels = Field(description="of red, green and blue, which count from 0 to 1")
    deviation: Channels
    homepage: str | None = None
    licence: str = Field("unknown", description="of the weights")
    rebuilds: str | None = Field(
        None, description="how near this comes to which published features, and what is not known"
    )

    @model_validator(mode="after")
    def _fits(self) -> Extractor:
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize,)
        if self.crop > min(sides):
            raise ValueError(f"crop: {self.crop} pixels of a picture of {min(sides)}")
        network = self.network
        if isinstance(network, SlowFast):
            if self.clip_frames % network.alpha:
                raise ValueError(f"clip_frames: {self.clip_frames}, expected a multiple of alpha")
            if 64 % network.beta_inverse:
                raise ValueError("network: beta_inverse divides 64, the first stage's channels")
            if network.fusion_kernel % 2 == 0:
                raise ValueError("network: fusion_kernel is odd, it looks as far back as ahead")
        is_mvit = isinstance(network, Torchvision) and network.model == "mvit_v2_s"
        if is_mvit and (self.clip_frames, self.crop) != (16, 224):
            raise ValueError("mvit_v2_s sees 16 frames of 224 pixels: clip_frames and crop")
        if isinstance(network, VideoMAE):
            if self.crop % network.patch or self.clip_frames % network.tubelet:
                raise ValueError("network: crop and clip_frames are multiples of patch and tubelet")
            if network.width % network.heads:
                raise ValueError("network: width is a multiple of heads")
        return self

    @property
    def span_frames(self) -> int:
        """Frames from the first to the last of a clip."""
        return (self.clip_frames - 1) * self.frame_step + 1

    @property
    def offset_frames(self) -> float:
        """Frame at the centre of the first clip."""
        return self.clip_frames * self.frame_step / 2

    @property
    def identity(self) -> str:
        """A name for all that features depend on, but for the weights' content."""
        unread = {"file", "homepage", "licence", "rebuilds", "weights"}
        values = self.model_dump(mode="json", exclude=unread)
        return digest({"arithmetic": ARITHMETIC, "values": values})

"""Features of a video: its clips through an extractor's network, one row per clip."""

from __future__ import annotations

import math
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from actionformer.data.extracted import Description, FeatureWriter
from actionformer.errors import InputError, is_out_of_memory
from actionformer.params.extractor import Extractor
from actionformer.progress import progress
from actionformer.video import clips
from actionformer.video.decode import VideoFrames

Item = TypeVar("Item")

# batches that are decoded ahead
AHEAD = 2


@dataclass(frozen=True)
class LoadedExtractor:
    """An extractor whose network has its weights, on the device that it computes on."""

    name: str
    params: Extractor
    weights_md5: str
    network: nn.Module
    device: str
    batch_size: int

    @torch.inference_mode()
    def features(self, clips_BTHWC: Tensor) -> Tensor:
        """Clips of bytes (B, T, H, W, 3) -> features (B, C) on the CPU."""
        # as bytes: a quarter of what would have to be copied to a GPU
        pixels = clips_BTHWC.to(self.device).permute(0, 4, 1, 2, 3).float() / 255
        mean, deviation = (
            torch.tensor(values, device=self.device).reshape(1, 3, 1, 1, 1)
            for values in (self.params.mean, self.params.deviation)
        )
        features_BC: Tensor = self.network((pixels - mean) / deviation)
        return features_BC.float().cpu()


def extract(
    video: Path,
    target: Path,
    loaded: LoadedExtractor,
    *,
    video_md5: str,
    say: Callable[[str], None],
    shows_progress: bool = True,
) -> Description:
    """Write the features of a video with what they are; whole or not at all.

    Memory does not depend on the video's length: frames come and go, features go to a temporary
    file beside the target.

    Args:
        say: is told of what was odd.

    Raises:
        InputError: a video that cannot be decoded, or features that are no finite numbers.
    """
    params = loaded.params
    frames = VideoFrames(
        video,
        fps=params.fps,
        frame_at=params.frame_at,
        decoder=params.decoder,
        resize=params.resize,
        antialias=params.antialias,
        crop=params.crop,
        is_needed=lambda k: clips.is_needed(k, params),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target.parent) as scratch:
        writer = FeatureWriter(params.dim, scratch)
        batches = clips.batches(frames, params, loaded.batch_size)
        with closing(_ahead(batches, AHEAD)) as decoded:
            shown: Iterable[clips.Clips] = decoded
            if shows_progress:
                total = _batches_promised(frames, loaded)
                shown = progress(decoded, f"extract {video.name}", unit="batch", total=total)
            for clips_BTHWC in shown:
                features_BC = _features(loaded, torch.from_numpy(clips_BTHWC))
                if features_BC.shape[1] != params.dim:
                    wrong = f"gives {features_BC.shape[1]} channels, its params say {params.dim}"
                    raise InputError(f"extractor {loaded.name}: {wrong}")
                if not torch.isfinite(features_BC).all():
                    wrong = f"features that are no finite numbers before frame {frames.count}"
                    raise InputError(f"{video}: {wrong}")
                writer.append(features_BC.numpy())
        if frames.broken:
            stands = "for them the frames before stand"
            say(f"{video}: {frames.broken} packets cannot be decoded; {stands}")
        description = Description(
            extractor=loaded.name,
            identity=params.identity,
            weights_md5=loaded.weights_md5,
            fps=frames.fps,
            stride_frames=float(params.stride_frames),
            offset_frames=float(params.offset_frames),
            duration=frames.count / frames.fps,
            frames=frames.count,
            video_md5=video_md5,
        )
        writer.finish(target, description)
    return description


def _features(loaded: LoadedExtractor, clips_BTHWC: Tensor) -> Tensor:
    """Of clips; too little memory for them is one line."""
    try:
        return loaded.features(clips_BTHWC)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        count = f"{len(clips_BTHWC)} clips at once" if len(clips_BTHWC) > 1 else "one clip"
        wrong = f"too little memory on {loaded.device} for {count}"
        raise InputError(f"extractor {loaded.name}: {wrong}; a smaller --batch-size") from None


def _batches_promised(frames: VideoFrames, loaded: LoadedExtractor) -> int | None:
    if frames.promised is None:
        return None
    clips_after_first = (frames.promised - loaded.params.span_frames) // loaded.params.stride_frames
    return math.ceil((max(clips_after_first, 0) + 1) / loaded.batch_size)


def _ahead(items: Iterable[Item], count: int) -> Generator[Item, None, None]:
    """The same items, made in a thread that is so many ahead of who asks for them."""
    iterator = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="decoder")
    try:
        made = deque(pool.submit(next, iterator, None) for _ in range(count))
        while (item := made.popleft().result()) is not None:
            made.append(pool.submit(next, iterator, None))
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

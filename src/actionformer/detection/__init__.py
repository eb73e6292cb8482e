"""From the network's levels to detections in seconds."""

from actionformer.detection.nms import batched_nms

__all__ = ["batched_nms"]

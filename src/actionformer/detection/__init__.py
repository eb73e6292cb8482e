"""From the network's levels to detections in seconds."""

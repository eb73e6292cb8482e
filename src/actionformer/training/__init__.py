"""The optimiser, its schedule, the loop, checkpoints."""

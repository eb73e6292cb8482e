"""Data that stand in for the publishers': drawn, in exactly their formats, learnable."""

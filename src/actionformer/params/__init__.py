"""Typed params: everything that defines a run, and nothing that computes."""

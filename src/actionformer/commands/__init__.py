"""The command line: one file per group of sub-commands, each with its options right above it.

A command parses, calls its stage, and prints what that says; it computes nothing. It imports its
stage when it runs, so that `--help` need not wait for torch.
"""

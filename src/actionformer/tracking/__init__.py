"""MLflow: runs, tags, metrics, uploads; no other room knows it.

An experiment per results table, a parent run per row, a child run per seed and published
checkpoint. The run folder is the record, MLflow a view of it: `results.restore` makes the view anew
from the folders.
"""

"""Files: written whole or not at all, read in one line's words where something is wrong; md5s.

The one reader of every text format stands in this room, so that damage of any kind is one line
wherever it comes. Arrays are read by `data.feature_files`, weights by `training.checkpoint`.
"""

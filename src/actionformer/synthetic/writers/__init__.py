"""The publishers' files of synthetic recordings: one writer per format, named as its converter.

The formats are those of the publishers' own pages, named in each writer; the converters in
`data/publishers` are written from the same pages. Odd cases that the real files have are here, too:
labels to be left out, duplicates, segments past the end, videos without features, blocked videos,
videos longer than the model's window.
"""

"""Figures, one file per question that they answer: how good, why wrong, what happens when.

Every figure is a Vega-Lite specification, a plain mapping that holds its data
(https://vega.github.io/vega-lite/docs/spec.html): one renderer for the report, MLflow, Snakemake's
report and files. Numbers of several seeds are means.
"""

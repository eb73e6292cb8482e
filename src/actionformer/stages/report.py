"""Tables, reports and model cards, from the files of finished runs; MLflow's view of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actionformer import layout, provenance
from actionformer.errors import InputError
from actionformer.files import read_object, write_json, write_text
from actionformer.metrics_file import read_metrics
from actionformer.params import keys
from actionformer.params.experiment import Experiment
from actionformer.params.files import why_not_comparable
from actionformer.reporting import report, table_forms, tables
from actionformer.reporting.figures.primitives import Figure
from actionformer.reporting.model_card import model_card
from actionformer.training.history import best_epoch, read_history

# ------------------------------------------------------------------------------------------ tables


def tabulate(
    experiments: Sequence[Experiment], seeds: Sequence[int], params: Path, *, released: bool = True
) -> list[str]:
    """Write the tables that these rows belong to; returns their texts.

    Args:
        released: with the published checkpoints.
    """
    grouped: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        grouped.setdefault(experiment.table, []).append(experiment)
    texts = []
    for name, members in grouped.items():
        rows = _table_rows(members, seeds, released=released)
        table = _table(rows, params)
        folder = layout.tables(members[0].edition)
        texts.append(table_forms.as_markdown(table))
        write_text(folder / f"{name}.md", texts[-1])
        write_text(folder / f"{name}.csv", table_forms.as_csv(rows))
        write_text(folder / f"{name}.tex", table_forms.as_latex(table))
        write_text(folder / f"{name}.html", report.table_page(table))
        made = keys.plain_record("tabulate", [keys.shown(member) for member in members])
        write_json(layout.manifest(folder / name), {"made_with": made})
    return texts


def page(edition: str, names: Sequence[str]) -> str:
    """Put tables on one page; says what it wrote."""
    folder = layout.tables(edition)
    parts = []
    for name in names:
        path = folder / f"{name}.md"
        if not path.exists():
            maker = f"actionformer tabulate --table {name}"
            raise InputError(f"{path}: no such table; `{maker}` makes it")
        parts.append(path.read_text(encoding="utf-8"))
    title = f"ActionFormer: results tables, {edition} edition"
    write_text(folder / "index.md", table_forms.page(title, parts))
    return f"{folder / 'index.md'}: {len(parts)} tables"


def _table(rows: Sequence[tables.Row], params: Path) -> tables.Table:
    first = rows[0].experiment
    remark = why_not_comparable(first, params)
    return tables.table_of(
        first.table, first.dataset.name, rows, edition=first.edition, remark=remark
    )


def _table_rows(
    experiments: Sequence[Experiment], seeds: Sequence[int], *, released: bool
) -> list[tables.Row]:
    """What tables say of these rows; nouns and verbs are fused where both are among them."""
    names = {experiment.name for experiment in experiments}
    rows = []
    for experiment in experiments:
        actions = experiment.actions_with in names
        rows.append(_table_row(experiment, seeds, released=released, actions=actions))
    return rows


def _table_row(
    experiment: Experiment, seeds: Sequence[int], *, released: bool, actions: bool
) -> tables.Row:
    runs = [_table_run(experiment, experiment.name, seed) for seed in seeds]
    fused = []
    if actions:
        fused = [_table_run(experiment, layout.actions(experiment), seed) for seed in seeds]
    checkpoint = None
    if released and experiment.released is not None:
        metrics = read_metrics(layout.released_run(experiment) / "metrics.json")
        name = layout.run_name(experiment.name, None, metrics["lineage"]["identity"])
        percent, why_none = metrics.get("percent", {}), metrics.get("none", "")
        checkpoint = tables.Released(percent, why_none, name)
    return tables.Row(experiment, runs, checkpoint, fused)


def _table_run(experiment: Experiment, folder: str, seed: int) -> tables.Run:
    path = layout.run(experiment.edition, folder, seed) / "metrics.json"
    metrics = read_metrics(path, experiment.evaluation.tiou)
    if not {"made_with", "lineage"} <= set(metrics):
        raise InputError(f"{path}: of an earlier version; `actionformer adopt` takes it over")
    lineage = provenance.as_pinned_now(metrics["lineage"])
    kind = lineage.get("kind", "")
    history = path.with_name("history.csv")
    return tables.Run(
        seed,
        metrics["percent"],
        metrics["videos"],
        metrics["instances"],
        lineage,
        layout.run_name(experiment.name, seed, lineage["identity"], kind),
        # fused actions have none
        best_epoch(read_history(history)) if history.exists() else None,
    )


# ----------------------------------------------------------------------------------------- reports


def write_report(
    experiments: Sequence[Experiment], seeds: Sequence[int], params: Path, *, released: bool = True
) -> str:
    """Put the tables and the drawn figures of these rows on one page; says what it wrote."""
    edition = experiments[0].edition
    grouped: dict[str, list[tables.Row]] = {}
    sections = []
    for row in _table_rows(experiments, seeds, released=released):
        experiment = row.experiment
        grouped.setdefault(experiment.table, []).append(row)
        title = f"{experiment.dataset.name}: {experiment.row}"
        facts = report.facts(row)
        sections.append(report.Section(experiment.name, title, facts, _drawn(experiment)))
    lead = why_not_comparable(experiments[0], params)
    text = report.page(
        f"ActionFormer: {edition} edition",
        lead=lead or "Published and reproduced results of ActionFormer (ECCV 2022).",
        results=[_table(rows, params) for rows in grouped.values()],
        sections=sections,
    )
    out = layout.report(edition)
    write_text(out, text)
    made = keys.plain_record("report", [keys.shown(experiment) for experiment in experiments])
    write_json(layout.manifest(out), {"made_with": made})
    size = f"{len(text) / 1e6:.1f} MB"
    return f"{out}: {len(grouped)} tables, {len(sections)} rows, {size}"


def _drawn(experiment: Experiment) -> list[Figure]:
    found = []
    for name in layout.FIGURES:
        path = layout.figures(experiment) / f"{name}.json"
        if not path.exists():
            maker = f"actionformer draw {experiment.argument}"
            raise InputError(f"{path}: not drawn yet; `{maker}` does")
        found.append(Figure(**read_object(path)))
    return found


def write_card(experiment: Experiment, seeds: Sequence[int], params: Path) -> str:
    """Write a row's model card; says what it wrote."""
    row = _table_row(experiment, seeds, released=False, actions=False)
    per_seed = []
    for seed in seeds:
        run = layout.run(experiment.edition, experiment.name, seed)
        per_seed.append(read_metrics(run / "metrics.json")["classes"])
    out = layout.model_card(experiment)
    text = model_card(row, per_seed, remark=why_not_comparable(experiment, params))
    write_text(out, text)
    made = keys.plain_record("card", [keys.on_card(experiment)])
    write_json(layout.manifest(out), {"made_with": made})
    return str(out)


# ------------------------------------------------------------------------------------------ MLflow
# It takes seconds to import, which the commands that don't log need not wait for.


def track(results: Path, stamp: Path | None, generation: int) -> str:
    """Bring finished runs into MLflow, where it lacks them, and what was drawn; says how many.

    Args:
        stamp: a file to write when it is done, for the workflow; keeps the `generation`.
    """
    from actionformer import tracking

    count = tracking.restore(results)
    if stamp is not None:
        write_json(stamp, {"generation": generation})
    return f"{count} runs brought into MLflow"


def runs(edition: str, address: str) -> str:
    """The addresses under which `mlflow ui` lists and compares the runs of every table."""
    from actionformer import tracking

    lines = tracking.addresses(edition, address.rstrip("/"))
    none = f"no run of the {edition} edition in MLflow; `actionformer track` brings them in"
    return "\n".join(lines) or none

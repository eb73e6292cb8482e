"""Tables, reports and model cards, from the files of finished runs; MLflow's view of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actionformer import layout, provenance
from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json, write_text
from actionformer.metrics_file import read_metrics, whole_metrics
from actionformer.params import keys
from actionformer.params.experiment import Experiment
from actionformer.reporting import report, table_forms, tables
from actionformer.reporting.figures.primitives import Figure
from actionformer.reporting.model_card import model_card
from actionformer.stages.shown import Shown, read_shown, shown
from actionformer.training.history import best_epoch, read_history

# the figure that shows ground truth
TRUTH = "timelines"
# the page with all tables
INDEX = "index.md"
# of bootstrap.json
CHANCE = ("mAP", "less_released_checkpoint")

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
        of_table = shown(members, seeds, params, released=released)
        forms = table_texts(of_table)
        texts.append(forms["md"])
        folder = layout.tables(of_table.edition)
        for form, text in forms.items():
            write_text(folder / f"{name}.{form}", text)
        made = keys.plain_record("tabulate", [keys.in_tables(member) for member in members])
        record = of_table.as_record(_bootstraps(members))
        write_json(layout.manifest(folder / name), {"made_with": made, **record})
    return texts


def table_texts(of_table: Shown) -> dict[str, str]:
    """A table in every form: ending of the file's name -> text."""
    rows = _table_rows(of_table)
    table = _table(rows, of_table.remark)
    return {
        "md": table_forms.as_markdown(table),
        "csv": table_forms.as_csv(rows),
        "tex": table_forms.as_latex(table),
        "html": report.table_page(table),
    }


def page(edition: str, names: Sequence[str]) -> str:
    """Put tables on one page; says what it wrote."""
    out = layout.tables(edition) / INDEX
    write_text(out, page_text(edition, names))
    write_json(layout.manifest(out), {"tables": list(names)})
    return f"{out}: {len(names)} tables"


def page_text(edition: str, names: Sequence[str]) -> str:
    """The page of these tables."""
    parts = []
    for name in names:
        path = layout.tables(edition) / f"{name}.md"
        if not path.exists():
            maker = f"actionformer tabulate --table {name}"
            raise InputError(f"{path}: no such table; `{maker}` makes it")
        parts.append(path.read_text(encoding="utf-8"))
    return _with_title(edition, parts)


def _with_title(edition: str, tables_in_order: Sequence[str]) -> str:
    title = f"ActionFormer: results tables, {edition} edition"
    return table_forms.page(title, tables_in_order)


def _table(rows: Sequence[tables.Row], remark: str) -> tables.Table:
    first = rows[0].experiment
    return tables.table_of(
        first.table, first.dataset.name, rows, edition=first.edition, remark=remark
    )


def _table_rows(page: Shown) -> list[tables.Row]:
    """What tables say of these rows; nouns and verbs are fused where both are among them."""
    names = {experiment.name for experiment in page.experiments}
    rows = []
    for experiment in page.experiments:
        actions = experiment.actions_with in names
        rows.append(_table_row(experiment, page.seeds, released=page.released, actions=actions))
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
    drawn = layout.bootstrap(experiment)
    chance = read_object(drawn, *CHANCE) if experiment.comparable and drawn.exists() else None
    return tables.Row(experiment, runs, checkpoint, fused, chance)


def _table_run(experiment: Experiment, folder: str, seed: int) -> tables.Run:
    path = layout.run(experiment.edition, folder, seed) / "metrics.json"
    metrics = whole_metrics(path, experiment.evaluation.tiou)
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
    of_page = shown(experiments, seeds, params, released=released)
    text = report_text(of_page)
    out = layout.report(of_page.edition)
    write_text(out, text)
    made = keys.plain_record("report", [keys.in_tables(experiment) for experiment in experiments])
    write_json(layout.manifest(out), {"made_with": made, **report_record(of_page)})
    count = len({experiment.table for experiment in experiments})
    return f"{out}: {count} tables, {len(experiments)} rows, {len(text) / 1e6:.1f} MB"


def report_record(of_page: Shown) -> dict[str, Any]:
    """What a report's manifest says of it, beside what it was made with."""
    figures = []
    for experiment in of_page.experiments:
        for name in _names_of_figures(of_page, experiment):
            figures.append(layout.figures(experiment) / f"{name}.json")
    return of_page.as_record([*figures, *_bootstraps(of_page.experiments)])


def _names_of_figures(of_page: Shown, experiment: Experiment) -> list[str]:
    hidden = [TRUTH] if experiment.name in of_page.hidden else []
    return [name for name in layout.FIGURES if name not in hidden]


def _bootstraps(experiments: Sequence[Experiment]) -> list[Path]:
    return [layout.bootstrap(experiment) for experiment in experiments if experiment.comparable]


def report_text(of_page: Shown) -> str:
    """The page with the tables and the drawn figures of these rows."""
    grouped: dict[str, list[tables.Row]] = {}
    sections = []
    for row in _table_rows(of_page):
        experiment = row.experiment
        grouped.setdefault(experiment.table, []).append(row)
        title = f"{experiment.dataset.name}: {experiment.row}"
        facts = report.facts(row)
        sections.append(report.Section(experiment.name, title, facts, _drawn(of_page, experiment)))
    usual = "Published and reproduced results of ActionFormer (ECCV 2022)."
    return report.page(
        f"ActionFormer: {of_page.edition} edition",
        lead=of_page.remark or usual,
        results=[_table(rows, of_page.remark) for rows in grouped.values()],
        sections=sections,
    )


def _drawn(of_page: Shown, experiment: Experiment) -> list[Figure]:
    found = []
    for name in _names_of_figures(of_page, experiment):
        path = layout.figures(experiment) / f"{name}.json"
        if not path.exists():
            maker = f"actionformer draw {experiment.argument}"
            raise InputError(f"{path}: not drawn yet; `{maker}` does")
        try:
            found.append(Figure(**read_object(path)))
        except TypeError as error:
            maker = f"actionformer draw {experiment.argument}"
            raise InputError(f"{path}: no figure ({error}); `{maker}` makes it anew") from None
    return found


def write_card(experiment: Experiment, seeds: Sequence[int], params: Path) -> str:
    """Write a row's model card; says what it wrote."""
    on_card = shown([experiment], seeds, params, released=False)
    out = layout.model_card(experiment)
    write_text(out, card_text(on_card))
    made = keys.plain_record("card", [keys.on_card(experiment)])
    write_json(layout.manifest(out), {"made_with": made, **on_card.as_record()})
    return str(out)


def card_text(on_card: Shown) -> str:
    """The model card of a row."""
    (experiment,) = on_card.experiments
    row = _table_row(experiment, on_card.seeds, released=False, actions=False)
    per_seed = []
    for seed in on_card.seeds:
        run = layout.run(experiment.edition, experiment.name, seed)
        per_seed.append(read_metrics(run / "metrics.json").get("classes", {}))
    return model_card(row, per_seed, remark=on_card.remark)


# ------------------------------------------------------------------------------- pages, made again


def page_manifests(results: Path) -> list[Path]:
    """Of the pages of an edition that show rows: tables, figures, model cards, the report."""
    found = [*results.glob("tables/*.manifest.json")]
    found += [*results.glob("*/figures.manifest.json"), *results.glob("*/README.manifest.json")]
    found += [*results.glob("report.manifest.json")]
    index = layout.manifest(Path(INDEX)).name
    return sorted(path for path in found if path.name != index)


def texts_of(manifest: Path) -> dict[Path, str]:
    """Path -> text of the pages beside a manifest, from the files of their runs; none of figures.

    Raises:
        InputError: a manifest of an earlier version, or a run that is not there.
    """
    name = manifest.name.removesuffix(".manifest.json")
    if name == "figures":
        return {}
    of_page = read_shown(manifest)
    if name == "report":
        return {layout.report(of_page.edition): report_text(of_page)}
    if name == "README":
        return {layout.model_card(of_page.experiments[0]): card_text(of_page)}
    forms = table_texts(of_page)
    return {manifest.with_name(f"{name}.{form}"): text for form, text in forms.items()}


def pages_of(edition: str) -> dict[Path, str]:
    """Path -> text of every page of an edition, but for figures.

    Raises:
        InputError: what `texts_of` raises.
    """
    pages: dict[Path, str] = {}
    for manifest in page_manifests(layout.results(edition)):
        pages |= texts_of(manifest)
    index = layout.tables(edition) / INDEX
    if layout.manifest(index).exists():
        names = read_object(layout.manifest(index), "tables")["tables"]
        in_order = [pages[layout.tables(edition) / f"{name}.md"] for name in names]
        pages[index] = _with_title(edition, in_order)
    return pages


# ------------------------------------------------------------------------------------------ MLflow
# It takes seconds to import, which the commands that don't log need not wait for.


def track(results: Path, stamp: Path | None, generation: int) -> str:
    """Bring finished runs into MLflow, where it lacks them, and what was drawn; says how many.

    Args:
        stamp: a file to write when it is done, for the workflow; keeps the `generation`.
    """
    from actionformer.tracking.results import restore

    count = restore(results)
    if stamp is not None:
        write_json(stamp, {"generation": generation})
    return f"{count} runs brought into MLflow"


def runs(edition: str, address: str) -> str:
    """The addresses under which `mlflow ui` lists and compares the runs of every table."""
    from actionformer.tracking.read import addresses

    lines = addresses(edition, address.rstrip("/"))
    none = f"no run of the {edition} edition in MLflow; `actionformer track` brings them in"
    return "\n".join(lines) or none

# Tables, figures, the pages with all of them, and MLflow.


rule draw:
    input:
        runs=lambda w: files_of_runs(
            w.row, ["metrics.json", "history.csv", "lineage.json"]
        ),
        # of any size; the metrics beside them have their md5s
        large=lambda w: [
            ancient(path)
            for path in files_of_runs(w.row, ["detections.json", "diagnosis.json"])
        ],
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        database_manifest=lambda w: database_manifest(ROWS[w.row]),
        released=lambda w: released_of([ROWS[w.row]]),
    output:
        specs=[
            f"results/{EDITION}/{{row}}/figures/{name}.json" for name in layout.FIGURES
        ],
        pictures=[
            report(
                f"results/{EDITION}/{{row}}/figures/{name}.svg",
                caption=f"../report/{name}.rst",
                category="Figures",
                subcategory="{row}",
                labels={"row": "{row}", "figure": name},
            )
            for name in layout.FIGURES
        ],
        manifest=f"results/{EDITION}/{{row}}/figures.manifest.json",
    log:
        log_of("draw/{row}"),
    benchmark:
        f"results/{EDITION}/benchmarks/draw/{{row}}.tsv"
    conda:
        "../../environment.yml"
    params:
        command=command(
            lambda w: f"actionformer draw {row_arguments(w.row)} {SEED_OPTIONS}",
            log_of("draw/{row}"),
        ),
        attempt=attempt(log_of("draw/{row}")),
        seeds=SEEDS,
        released=RELEASED,
        key=lambda w: keys.plain_key("draw", [keys.shown(ROWS[w.row])]),
    message:
        "Draw the figures of {wildcards.row}"
    shell:
        "{params.command}"


rule bootstrap:
    input:
        metrics=lambda w: files_of_runs(w.row, ["metrics.json"]),
        # of any size; the metrics beside them have their md5s
        detections=lambda w: [
            ancient(path) for path in files_of_runs(w.row, ["detections.json"])
        ],
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        database_manifest=lambda w: database_manifest(ROWS[w.row]),
        released=lambda w: released_of([ROWS[w.row]]),
    output:
        intervals=f"results/{EDITION}/{{row}}/bootstrap.json",
    log:
        log_of("bootstrap/{row}"),
    benchmark:
        f"results/{EDITION}/benchmarks/bootstrap/{{row}}.tsv"
    conda:
        "../../environment.yml"
    params:
        command=command(
            lambda w: f"actionformer bootstrap {row_arguments(w.row)} {SEED_OPTIONS}",
            log_of("bootstrap/{row}"),
        ),
        attempt=attempt(log_of("bootstrap/{row}")),
        seeds=SEEDS,
        released=RELEASED,
        key=lambda w: keys.plain_key("bootstrap", [keys.shown(ROWS[w.row])]),
    message:
        "Draw the videos of {wildcards.row} anew"
    shell:
        "{params.command}"


rule card:
    input:
        runs=lambda w: files_of_runs(w.row, ["metrics.json"]),
    output:
        card=f"results/{EDITION}/{{row}}/README.md",
        manifest=f"results/{EDITION}/{{row}}/README.manifest.json",
    log:
        log_of("card/{row}"),
    benchmark:
        f"results/{EDITION}/benchmarks/card/{{row}}.tsv"
    conda:
        "../../environment.yml"
    params:
        command=command(
            lambda w: f"actionformer card {row_arguments(w.row)} --seeds {SEED_LIST}",
            log_of("card/{row}"),
        ),
        attempt=attempt(log_of("card/{row}")),
        seeds=SEEDS,
        remark=CHOSEN.why_not_comparable,
        pinned=lambda w: pinned([ROWS[w.row]]),
        key=lambda w: keys.plain_key("card", [keys.on_card(ROWS[w.row])]),
    message:
        "Write the model card of {wildcards.row}"
    shell:
        "{params.command}"


rule tabulate:
    input:
        metrics=lambda w: runs_of(w.table, "metrics.json"),
        histories=lambda w: runs_of(w.table, "history.csv"),
        actions=lambda w: actions_of(w.table),
        released=lambda w: released_of(TABLES[w.table]),
        bootstraps=lambda w: bootstraps_of(TABLES[w.table]),
    output:
        markdown=layout.tables(EDITION) / "{table}.md",
        html=report(
            layout.tables(EDITION) / "{table}.html",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        csv=layout.tables(EDITION) / "{table}.csv",
        latex=layout.tables(EDITION) / "{table}.tex",
        manifest=layout.tables(EDITION) / "{table}.manifest.json",
    log:
        log_of("tabulate/{table}"),
    benchmark:
        f"results/{EDITION}/benchmarks/tabulate/{{table}}.tsv"
    conda:
        "../../environment.yml"
    params:
        command=command(
            lambda w: f"actionformer tabulate {ROW_OPTIONS} --table {shlex.quote(w.table)}"
            f" --rows {row_names(TABLES[w.table])} {SEED_OPTIONS}",
            log_of("tabulate/{table}"),
        ),
        attempt=attempt(log_of("tabulate/{table}")),
        seeds=SEEDS,
        released=RELEASED,
        remark=CHOSEN.why_not_comparable,
        pinned=lambda w: pinned(TABLES[w.table]),
        key=lambda w: keys.plain_key(
            "tabulate", [keys.in_tables(row) for row in TABLES[w.table]]
        ),
    message:
        "Tabulate {wildcards.table}"
    shell:
        "{params.command}"


rule page:
    input:
        tables=[layout.tables(EDITION) / f"{table}.md" for table in TABLES],
    output:
        page=INDEX,
    log:
        log_of("page"),
    benchmark:
        f"results/{EDITION}/benchmarks/page.tsv"
    conda:
        "../../environment.yml"
    params:
        command=command(
            lambda w: f"actionformer page {OPTIONS} {shlex.join(TABLES)}",
            log_of("page"),
        ),
        attempt=attempt(log_of("page")),
        tables=list(TABLES),
    message:
        "Put all tables on one page"
    shell:
        "{params.command}"


rule report_page:
    input:
        figures=[
            ancient(layout.figures(row) / f"{name}.json")
            for row in ROWS.values()
            for name in layout.FIGURES
        ],
        figure_manifests=[layout.manifest(layout.figures(row)) for row in ROWS.values()],
        metrics=[
            path
            for table in TABLES
            for path in [*runs_of(table, "metrics.json"), *actions_of(table)]
        ],
        histories=[path for table in TABLES for path in runs_of(table, "history.csv")],
        released=released_of(ROWS.values()),
        bootstraps=bootstraps_of(ROWS.values()),
    output:
        page=report(
            layout.report(EDITION),
            caption="../report/report.rst",
            category="Report",
        ),
        manifest=layout.manifest(layout.report(EDITION)),
    log:
        log_of("report"),
    benchmark:
        f"results/{EDITION}/benchmarks/report.tsv"
    conda:
        "../../environment.yml"
    params:
        command=command(
            lambda w: f"actionformer report {ROW_OPTIONS}"
            f" --rows {row_names(ROWS.values())} {SEED_OPTIONS}",
            log_of("report"),
        ),
        attempt=attempt(log_of("report")),
        seeds=SEEDS,
        released=RELEASED,
        remark=CHOSEN.why_not_comparable,
        pinned=pinned(ROWS.values()),
        key=keys.plain_key("report", [keys.in_tables(row) for row in ROWS.values()]),
    message:
        "Put tables and figures on one page"
    shell:
        "{params.command}"


if TRACKING:

    # Every run logs itself; this brings in what MLflow lacks, and what was drawn of them: in one process,
    # since importing MLflow takes longer than drawing. It writes a stamp, not the database, which Snakemake must neither
    # copy nor put back while runs log to it.
    rule track:
        input:
            metrics=[
                path
                for table in TABLES
                for path in [
                    *runs_of(table, "metrics.json"),
                    *actions_of(table),
                    *released_of(TABLES[table]),
                ]
            ],
            drawn=[
                layout.manifest(path)
                for row in ROWS.values()
                for path in (layout.figures(row), layout.model_card(row))
            ],
            tables=[layout.manifest(layout.tables(EDITION) / table) for table in TABLES],
        output:
            stamp=TRACKING,
        log:
            log_of("track"),
        benchmark:
            f"results/{EDITION}/benchmarks/track.tsv"
        conda:
            "../../environment.yml"
        params:
            command=command(
                lambda w: f"actionformer track --stamp {shlex.quote(TRACKING)}"
                f" --generation {GENERATION}",
                log_of("track"),
            ),
            attempt=attempt(log_of("track")),
            generation=GENERATION,
        message:
            "Bring finished runs into MLflow"
        shell:
            "{params.command}"


onstart:
    count_attempts()
    look_for_jobs_only_when_one_ends()


onerror:
    if not TRACKING:
        # what was trained nevertheless
        shell("actionformer track || true")


onsuccess:
    if not TRACKING:
        # No stamp here tells what a server of one's own has. One that fails says so, and the call has succeeded.
        shell("actionformer track || true")
    if layout.report(EDITION).exists():
        print(f"report: {layout.report(EDITION)}")
        print(
            f"tables: {layout.tables(EDITION)}, and with every run in `mlflow ui`"
        )
    for line in AFTERWARDS:
        print(line)

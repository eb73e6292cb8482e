# Tables, figures, the pages with all of them, and MLflow.


rule draw:
    input:
        runs=lambda w: files_of_runs(
            w.row, ["metrics.json", "diagnosis.json", "history.csv"]
        ),
        detections=lambda w: files_of_runs(w.row, ["detections.json"]),
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
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
    log:
        f"results/{EDITION}/logs/draw/{{row}}.log",
    benchmark:
        f"results/{EDITION}/benchmarks/draw/{{row}}.tsv"
    conda:
        "../../environment.yml"
    params:
        row=untracked(lambda w: row_name(ROWS[w.row])),
        options=untracked(ROW_OPTIONS),
        released=untracked("" if RELEASED else "--no-released"),
        seeds=SEEDS,
        key=lambda w: digest([RELEASED, ROWS[w.row].table_key()]),
    message:
        "Draw the figures of {wildcards.row}"
    shell:
        "actionformer draw {params.row} {params.options} --seeds {params.seeds} {params.released}"
        " >> {log} 2> >(tee -ia {log} >&2)"


rule card:
    input:
        runs=lambda w: files_of_runs(w.row, ["metrics.json"]),
        lineages=lambda w: [
            ancient(path) for path in files_of_runs(w.row, ["lineage.json"])
        ],
    output:
        card=f"results/{EDITION}/{{row}}/README.md",
    log:
        f"results/{EDITION}/logs/card/{{row}}.log",
    benchmark:
        f"results/{EDITION}/benchmarks/card/{{row}}.tsv"
    conda:
        "../../environment.yml"
    params:
        row=untracked(lambda w: row_name(ROWS[w.row])),
        options=untracked(ROW_OPTIONS),
        seeds=SEEDS,
        key=lambda w: digest([CHOSEN.why_not_comparable, ROWS[w.row].card_key()]),
    message:
        "Write the model card of {wildcards.row}"
    shell:
        "actionformer card {params.row} {params.options} --seeds {params.seeds} >> {log} 2> >(tee -ia {log} >&2)"


rule tabulate:
    input:
        metrics=lambda w: runs_of(w.table, "metrics.json"),
        actions=lambda w: actions_of(w.table),
        released=lambda w: released_of(TABLES[w.table]),
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
    log:
        f"results/{EDITION}/logs/tabulate/{{table}}.log",
    benchmark:
        f"results/{EDITION}/benchmarks/tabulate/{{table}}.tsv"
    conda:
        "../../environment.yml"
    params:
        rows=untracked(lambda w: [row_name(row) for row in TABLES[w.table]]),
        options=untracked(ROW_OPTIONS),
        released=untracked("" if RELEASED else "--no-released"),
        seeds=SEEDS,
        key=lambda w: digest(
            [
                CHOSEN.why_not_comparable,
                RELEASED,
                *(row.table_key() for row in TABLES[w.table]),
            ]
        ),
    message:
        "Tabulate {wildcards.table}"
    shell:
        "actionformer tabulate {params.options} --table {wildcards.table} --rows {params.rows}"
        " --seeds {params.seeds} {params.released} >> {log} 2> >(tee -ia {log} >&2)"


rule page:
    input:
        tables=[layout.tables(EDITION) / f"{table}.md" for table in TABLES],
    output:
        page=INDEX,
    log:
        f"results/{EDITION}/logs/page.log",
    benchmark:
        f"results/{EDITION}/benchmarks/page.tsv"
    conda:
        "../../environment.yml"
    params:
        options=untracked(OPTIONS),
        tables=list(TABLES),
    message:
        "Put all tables on one page"
    shell:
        "actionformer page {params.options} {params.tables} >> {log} 2> >(tee -ia {log} >&2)"


rule report_page:
    input:
        figures=[
            layout.figures(row) / f"{name}.json"
            for row in ROWS.values()
            for name in layout.FIGURES
        ],
        metrics=[
            path
            for table in TABLES
            for path in [*runs_of(table, "metrics.json"), *actions_of(table)]
        ],
        released=released_of(ROWS.values()),
    output:
        page=report(
            layout.report(EDITION),
            caption="../report/report.rst",
            category="Report",
        ),
    log:
        f"results/{EDITION}/logs/report.log",
    benchmark:
        f"results/{EDITION}/benchmarks/report.tsv"
    conda:
        "../../environment.yml"
    params:
        rows=untracked([row_name(row) for row in ROWS.values()]),
        options=untracked(ROW_OPTIONS),
        released=untracked("" if RELEASED else "--no-released"),
        seeds=SEEDS,
        key=digest(
            [
                CHOSEN.why_not_comparable,
                RELEASED,
                *(row.table_key() for row in ROWS.values()),
            ]
        ),
    message:
        "Put tables and figures on one page"
    shell:
        "actionformer report {params.options} --rows {params.rows} --seeds {params.seeds} {params.released}"
        " >> {log} 2> >(tee -ia {log} >&2)"


if TRACKING:

    # every run logs itself; this brings back runs that MLflow lacks, as when its database was deleted
    rule track:
        input:
            metrics=[
                ancient(path)
                for table in TABLES
                for path in [
                    *runs_of(table, "metrics.json"),
                    *released_of(TABLES[table]),
                ]
            ],
        output:
            database=update(TRACKING),
        log:
            "results/logs/track.log",
        benchmark:
            "results/benchmarks/track.tsv"
        conda:
            "../../environment.yml"
        message:
            "Bring finished runs into MLflow"
        shell:
            "actionformer track >> {log} 2> >(tee -ia {log} >&2)"


onsuccess:
    if layout.report(EDITION).exists():
        print(f"report: {layout.report(EDITION)}")
        print(
            f"tables: {layout.tables(EDITION)}, and with every run in `mlflow ui`"
        )
    for line in AFTERWARDS:
        print(line)

# Tables, the page with all of them, and MLflow.


rule tabulate:
    input:
        metrics=lambda w: runs_of(w.table, "metrics.json"),
        released=lambda w: released_of(w.table),
    output:
        markdown=report(
            layout.tables(EDITION) / "{table}.md",
            caption="../report/table.rst",
            category="Tables",
        ),
        csv=layout.tables(EDITION) / "{table}.csv",
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


if TRACKING:

    # every run logs itself; this brings back runs that MLflow lacks, as when its database was deleted
    rule track:
        input:
            metrics=[
                ancient(path)
                for table in TABLES
                for path in [*runs_of(table, "metrics.json"), *released_of(table)]
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

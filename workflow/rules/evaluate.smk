# Detections against ground truth.


rule evaluate:
    input:
        detections=f"results/{EDITION}/{{row}}/seed{{seed}}/detections.json",
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        database_manifest=lambda w: databases.manifest_path(
            layout.database_of(ROWS[w.row])
        ),
        lineage=ancient(f"results/{EDITION}/{{row}}/seed{{seed}}/lineage.json"),
    output:
        metrics=f"results/{EDITION}/{{row}}/seed{{seed}}/metrics.json",
    log:
        f"results/{EDITION}/logs/evaluate/{{row}}-seed{{seed}}.log",
    benchmark:
        f"results/{EDITION}/benchmarks/evaluate/{{row}}-seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    params:
        row=untracked(lambda w: row_name(ROWS[w.row])),
        options=untracked(ROW_OPTIONS),
        key=lambda w: digest(ROWS[w.row].key("evaluate")),
    message:
        "Evaluate {wildcards.row}, seed {wildcards.seed}"
    shell:
        "actionformer evaluate {params.row} {params.options} --seed {wildcards.seed} >> {log} 2> >(tee -ia {log} >&2)"

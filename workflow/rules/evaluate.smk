# Detections against ground truth: of the runs trained here, of nouns and verbs fused, of the published checkpoints.


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
        diagnosis=f"results/{EDITION}/{{row}}/seed{{seed}}/diagnosis.json",
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
        bin_edges=lambda w: digest(ROWS[w.row].dataset.model_dump()["bin_edges"]),
    message:
        "Evaluate {wildcards.row}, seed {wildcards.seed}"
    shell:
        "actionformer evaluate {params.row} {params.options} --seed {wildcards.seed} >> {log} 2> >(tee -ia {log} >&2)"


rule actions:
    input:
        nouns=f"results/{EDITION}/{{nouns}}/seed{{seed}}/model.pt",
        verbs=lambda w: layout.run(EDITION, FUSED[w.nouns].actions_with, int(w.seed))
        / "model.pt",
        database=lambda w: ancient(layout.database_of(FUSED[w.nouns])),
        store=lambda w: ancient(layout.store_of(FUSED[w.nouns])),
        database_manifest=lambda w: databases.manifest_path(
            layout.database_of(FUSED[w.nouns])
        ),
        store_manifest=lambda w: stores.manifest_path(layout.store_of(FUSED[w.nouns])),
    output:
        detections=f"results/{EDITION}/{{nouns}}_actions/seed{{seed}}/detections.json",
        metrics=f"results/{EDITION}/{{nouns}}_actions/seed{{seed}}/metrics.json",
    log:
        f"results/{EDITION}/logs/actions/{{nouns}}-seed{{seed}}.log",
    benchmark:
        f"results/{EDITION}/benchmarks/actions/{{nouns}}-seed{{seed}}.tsv"
    wildcard_constraints:
        nouns="|".join(FUSED) or "none",
    conda:
        "../../environment.yml"
    threads: lambda w: FUSED[w.nouns].training.threads
    resources:
        mem_mb=CHOSEN.memory_mb,
        gpu=1,
    params:
        row=untracked(lambda w: row_name(FUSED[w.nouns])),
        options=untracked(ROW_OPTIONS),
        key=lambda w: digest(
            [
                row.key(stage)
                for row in (FUSED[w.nouns], ROWS[FUSED[w.nouns].actions_with])
                for stage in ("detect", "evaluate")
            ]
        ),
    message:
        "Fuse {wildcards.nouns} with its verbs into actions, seed {wildcards.seed}"
    shell:
        "actionformer actions {params.row} {params.options} --seed {wildcards.seed} >> {log} 2> >(tee -ia {log} >&2)"


rule evaluate_released:
    input:
        checkpoint=lambda w: ancient(released_checkpoint(w.row)),
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        store=lambda w: ancient(layout.store_of(ROWS[w.row])),
        database_manifest=lambda w: databases.manifest_path(
            layout.database_of(ROWS[w.row])
        ),
        store_manifest=lambda w: stores.manifest_path(layout.store_of(ROWS[w.row])),
        audit=lambda w: ancient(f"build/{EDITION}/audit/{w.row}.json"),
        classifier=lambda w: [ancient(path) for path in classifier_files(ROWS[w.row])],
    output:
        metrics=f"results/{EDITION}/{{row}}/released/metrics.json",
    log:
        f"results/{EDITION}/logs/evaluate_released/{{row}}.log",
    benchmark:
        f"results/{EDITION}/benchmarks/evaluate_released/{{row}}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda w: ROWS[w.row].training.threads
    resources:
        mem_mb=CHOSEN.memory_mb,
        gpu=1,
    params:
        row=untracked(lambda w: row_name(ROWS[w.row])),
        options=untracked(ROW_OPTIONS),
        key=lambda w: digest(
            [ROWS[w.row].key(stage) for stage in ("released", "detect", "evaluate")]
        ),
        md5s=lambda w: md5s(
            [
                layout.released_checkpoint_of(ROWS[w.row]),
                *classifier_files(ROWS[w.row]),
            ],
            layout.released_run(ROWS[w.row]) / "lineage.json",
        ),
    message:
        "Evaluate the released checkpoint of {wildcards.row}"
    shell:
        "actionformer evaluate-released {params.row} {params.options} >> {log} 2> >(tee -ia {log} >&2)"

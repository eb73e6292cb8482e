# Weights to detections, detections against ground truth: of the runs trained here, of nouns and verbs fused, of the
# published checkpoints.


rule detect:
    input:
        model=ancient(f"results/{EDITION}/{{row}}/seed{{seed}}/model.pt"),
        model_manifest=f"results/{EDITION}/{{row}}/seed{{seed}}/model.manifest.json",
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        store=lambda w: ancient(layout.store_of(ROWS[w.row])),
        database_manifest=lambda w: database_manifest(ROWS[w.row]),
        store_manifest=lambda w: store_manifest(ROWS[w.row]),
        classifier=lambda w: [ancient(path) for path in classifier_files(ROWS[w.row])],
    output:
        detections=f"results/{EDITION}/{{row}}/seed{{seed}}/detections.json",
        manifest=update(
            f"results/{EDITION}/{{row}}/seed{{seed}}/detections.manifest.json"
        ),
    log:
        log_of("detect/{row}-seed{seed}"),
    benchmark:
        f"results/{EDITION}/benchmarks/detect/{{row}}-seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda w: ROWS[w.row].training.threads
    resources:
        mem_mb=lambda w: memory_of(ROWS[w.row]),
        gpu=int(GPU),
        runtime=MINUTES_TO_DETECT,
    params:
        command=command(
            lambda w: f"actionformer detect {row_arguments(w.row)} --seed {w.seed}{MACHINE}",
            log_of("detect/{row}-seed{seed}"),
        ),
        attempt=attempt(log_of("detect/{row}-seed{seed}")),
        key=lambda w: keys.key(
            "detect",
            ROWS[w.row],
            keys.stored(layout.manifest(run_of(w.row, w.seed) / "detections.json")),
        ),
        md5s=lambda w: md5s(
            classifier_files(ROWS[w.row]),
            layout.manifest(run_of(w.row, w.seed) / "detections.json"),
        ),
    message:
        "Detect with {wildcards.row}, seed {wildcards.seed}"
    shell:
        "{params.command}"


rule evaluate:
    input:
        detections=ancient(f"results/{EDITION}/{{row}}/seed{{seed}}/detections.json"),
        detections_manifest=f"results/{EDITION}/{{row}}/seed{{seed}}/detections.manifest.json",
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        database_manifest=lambda w: database_manifest(ROWS[w.row]),
        # the rest of a run's folder goes into MLflow with its metrics, where it is there
        lineage=f"results/{EDITION}/{{row}}/seed{{seed}}/lineage.json",
        history=ancient(f"results/{EDITION}/{{row}}/seed{{seed}}/history.csv"),
    output:
        metrics=update(f"results/{EDITION}/{{row}}/seed{{seed}}/metrics.json"),
        diagnosis=f"results/{EDITION}/{{row}}/seed{{seed}}/diagnosis.json",
    log:
        log_of("evaluate/{row}-seed{seed}"),
    benchmark:
        f"results/{EDITION}/benchmarks/evaluate/{{row}}-seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    params:
        command=command(
            lambda w: f"actionformer evaluate {row_arguments(w.row)} --seed {w.seed}",
            log_of("evaluate/{row}-seed{seed}"),
        ),
        attempt=attempt(log_of("evaluate/{row}-seed{seed}")),
        key=lambda w: keys.key(
            "evaluate",
            ROWS[w.row],
            keys.stored(run_of(w.row, w.seed) / "metrics.json"),
        ),
    message:
        "Evaluate {wildcards.row}, seed {wildcards.seed}"
    shell:
        "{params.command}"


rule actions:
    input:
        models=lambda w: [
            ancient(path) for path in fused_runs(w.nouns, w.seed, "model.pt")
        ],
        model_manifests=lambda w: fused_runs(w.nouns, w.seed, "model.manifest.json"),
        lineages=lambda w: fused_runs(w.nouns, w.seed, "lineage.json"),
        database=lambda w: ancient(layout.database_of(FUSED[w.nouns])),
        store=lambda w: ancient(layout.store_of(FUSED[w.nouns])),
        database_manifest=lambda w: database_manifest(FUSED[w.nouns]),
        store_manifest=lambda w: store_manifest(FUSED[w.nouns]),
    output:
        detections=f"results/{EDITION}/{{nouns}}_actions/seed{{seed}}/detections.json",
        metrics=update(f"results/{EDITION}/{{nouns}}_actions/seed{{seed}}/metrics.json"),
    log:
        log_of("actions/{nouns}-seed{seed}"),
    benchmark:
        f"results/{EDITION}/benchmarks/actions/{{nouns}}-seed{{seed}}.tsv"
    wildcard_constraints:
        nouns="|".join(re.escape(name) for name in FUSED) or "none",
    conda:
        "../../environment.yml"
    threads: lambda w: FUSED[w.nouns].training.threads
    resources:
        mem_mb=lambda w: memory_of(FUSED[w.nouns]),
        gpu=int(GPU),
        runtime=MINUTES_TO_DETECT,
    params:
        command=command(
            lambda w: f"actionformer actions {row_arguments(w.nouns)} --seed {w.seed}{MACHINE}",
            log_of("actions/{nouns}-seed{seed}"),
        ),
        attempt=attempt(log_of("actions/{nouns}-seed{seed}")),
        key=lambda w: keys.key(
            "actions",
            FUSED[w.nouns],
            keys.stored(
                run_of(layout.actions(FUSED[w.nouns]), w.seed) / "metrics.json"
            ),
        ),
    message:
        "Fuse {wildcards.nouns} with its verbs into actions, seed {wildcards.seed}"
    shell:
        "{params.command}"


rule evaluate_released:
    input:
        checkpoint=lambda w: ancient(released_checkpoint(w.row)),
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        store=lambda w: ancient(layout.store_of(ROWS[w.row])),
        database_manifest=lambda w: database_manifest(ROWS[w.row]),
        store_manifest=lambda w: store_manifest(ROWS[w.row]),
        audit=lambda w: ancient(layout.audit(ROWS[w.row])),
        classifier=lambda w: [ancient(path) for path in classifier_files(ROWS[w.row])],
    output:
        metrics=update(f"results/{EDITION}/{{row}}/released/metrics.json"),
    log:
        log_of("evaluate_released/{row}"),
    benchmark:
        f"results/{EDITION}/benchmarks/evaluate_released/{{row}}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda w: ROWS[w.row].training.threads
    resources:
        mem_mb=lambda w: memory_of(ROWS[w.row]),
        gpu=int(GPU),
        runtime=MINUTES_TO_DETECT,
    params:
        command=command(
            lambda w: f"actionformer evaluate-released {row_arguments(w.row)}{MACHINE}",
            log_of("evaluate_released/{row}"),
        ),
        attempt=attempt(log_of("evaluate_released/{row}")),
        key=lambda w: keys.key(
            "released",
            ROWS[w.row],
            keys.stored(layout.released_run(ROWS[w.row]) / "metrics.json"),
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
        "{params.command}"

# One job per row and seed. `checkpoint.pt` is no declared output: it outlives a job that was interrupted.
#
# Outputs are marked with `update`: a run that is there stays until the command has moved it aside or replaced it.


rule train:
    input:
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        store=lambda w: ancient(layout.store_of(ROWS[w.row])),
        database_manifest=lambda w: database_manifest(ROWS[w.row]),
        store_manifest=lambda w: store_manifest(ROWS[w.row]),
        audit=lambda w: ancient(layout.audit(ROWS[w.row])),
        classifier=lambda w: [ancient(path) for path in classifier_files(ROWS[w.row])],
        # what a published checkpoint scores says in minutes whether days of training would be lost
        released=lambda w: [ancient(path) for path in released_before(ROWS[w.row])],
    output:
        model=update(f"results/{EDITION}/{{row}}/seed{{seed}}/model.pt"),
        manifest=update(f"results/{EDITION}/{{row}}/seed{{seed}}/model.manifest.json"),
        history=update(f"results/{EDITION}/{{row}}/seed{{seed}}/history.csv"),
        params=update(f"results/{EDITION}/{{row}}/seed{{seed}}/params.yaml"),
        lineage=update(f"results/{EDITION}/{{row}}/seed{{seed}}/lineage.json"),
    log:
        log_of("train/{row}-seed{seed}"),
    benchmark:
        f"results/{EDITION}/benchmarks/train/{{row}}-seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda w: ROWS[w.row].training.threads
    resources:
        mem_mb=lambda w: memory_of(ROWS[w.row]),
        gpu=int(GPU),
        runtime=lambda w: minutes_of(ROWS[w.row]),
    params:
        command=command(
            lambda w: f"actionformer train {row_arguments(w.row)} --seed {w.seed}{MACHINE}{IGNORE_RELEASED}",
            log_of("train/{row}-seed{seed}"),
        ),
        attempt=attempt(log_of("train/{row}-seed{seed}")),
        key=lambda w: keys.key(
            "train",
            ROWS[w.row],
            keys.stored(layout.manifest(run_of(w.row, w.seed) / "model.pt")),
        ),
    message:
        "Train {wildcards.row}, seed {wildcards.seed}"
    shell:
        "{params.command}"

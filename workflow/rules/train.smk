# One job per row and seed. `checkpoint.pt` is no declared output: it outlives a job that was interrupted.


rule train:
    input:
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        store=lambda w: ancient(layout.store_of(ROWS[w.row])),
        database_manifest=lambda w: databases.manifest_path(
            layout.database_of(ROWS[w.row])
        ),
        store_manifest=lambda w: stores.manifest_path(layout.store_of(ROWS[w.row])),
        audit=lambda w: ancient(f"build/{EDITION}/audit/{w.row}.json"),
        classifier=lambda w: [ancient(path) for path in classifier_files(ROWS[w.row])],
    output:
        model=f"results/{EDITION}/{{row}}/seed{{seed}}/model.pt",
        history=f"results/{EDITION}/{{row}}/seed{{seed}}/history.csv",
        params=f"results/{EDITION}/{{row}}/seed{{seed}}/params.yaml",
        lineage=f"results/{EDITION}/{{row}}/seed{{seed}}/lineage.json",
    log:
        f"results/{EDITION}/logs/train/{{row}}-seed{{seed}}.log",
    benchmark:
        f"results/{EDITION}/benchmarks/train/{{row}}-seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda w: ROWS[w.row].training.threads
    resources:
        mem_mb=CHOSEN.memory_mb,
        gpu=1,
    params:
        row=untracked(lambda w: row_name(ROWS[w.row])),
        options=untracked(ROW_OPTIONS),
        key=lambda w: digest(ROWS[w.row].key("train")),
    message:
        "Train {wildcards.row}, seed {wildcards.seed}"
    shell:
        "actionformer train {params.row} {params.options} --seed {wildcards.seed} >> {log} 2> >(tee -ia {log} >&2)"


rule detect:
    input:
        model=f"results/{EDITION}/{{row}}/seed{{seed}}/model.pt",
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        store=lambda w: ancient(layout.store_of(ROWS[w.row])),
        classifier=lambda w: [ancient(path) for path in classifier_files(ROWS[w.row])],
    output:
        detections=f"results/{EDITION}/{{row}}/seed{{seed}}/detections.json",
    log:
        f"results/{EDITION}/logs/detect/{{row}}-seed{{seed}}.log",
    benchmark:
        f"results/{EDITION}/benchmarks/detect/{{row}}-seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda w: ROWS[w.row].training.threads
    resources:
        mem_mb=CHOSEN.memory_mb,
        gpu=1,
    params:
        row=untracked(lambda w: row_name(ROWS[w.row])),
        options=untracked(ROW_OPTIONS),
        key=lambda w: digest(ROWS[w.row].key("detect")),
        md5s=lambda w: md5s(
            classifier_files(ROWS[w.row]),
            layout.run(EDITION, w.row, int(w.seed)) / "lineage.json",
        ),
    message:
        "Detect with {wildcards.row}, seed {wildcards.seed}"
    shell:
        "actionformer detect {params.row} {params.options} --seed {wildcards.seed} >> {log} 2> >(tee -ia {log} >&2)"

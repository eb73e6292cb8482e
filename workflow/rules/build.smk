# Raw files -> one database per data set, one feature store per feature set, and an audit per row.


rule convert:
    input:
        files=lambda w: [
            ancient(path) for path in layout.annotation_files_of(DATASETS[w.dataset])
        ],
    output:
        database=f"build/{EDITION}/{{dataset}}/annotations.json",
        manifest=f"build/{EDITION}/{{dataset}}/annotations.manifest.json",
    log:
        f"build/{EDITION}/logs/convert/{{dataset}}.log",
    benchmark:
        f"build/{EDITION}/benchmarks/convert/{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    params:
        dataset=untracked(lambda w: dataset_argument(w.dataset)),
        options=untracked(OPTIONS),
        md5s=lambda w: md5s(
            layout.annotation_files_of(DATASETS[w.dataset]),
            databases.manifest_path(layout.database(EDITION, w.dataset)),
        ),
        key=lambda w: digest(DATASETS[w.dataset].conversion_key()),
    message:
        "Convert the annotations of {wildcards.dataset}"
    shell:
        "actionformer convert {params.dataset} {params.options} >> {log} 2> >(tee -ia {log} >&2)"


rule pack:
    input:
        source=lambda w: ancient(layout.features_of(STORES[w.dataset, w.features])),
    output:
        store=f"build/{EDITION}/{{dataset}}/{{features}}.h5",
        manifest=f"build/{EDITION}/{{dataset}}/{{features}}.json",
    log:
        f"build/{EDITION}/logs/pack/{{dataset}}-{{features}}.log",
    benchmark:
        f"build/{EDITION}/benchmarks/pack/{{dataset}}-{{features}}.tsv"
    conda:
        "../../environment.yml"
    params:
        dataset=untracked(lambda w: dataset_argument(w.dataset)),
        options=untracked(OPTIONS),
        md5s=lambda w: md5s(
            [layout.features_of(STORES[w.dataset, w.features])],
            stores.manifest_path(layout.feature_store(EDITION, w.dataset, w.features)),
        ),
        key=lambda w: digest(STORES[w.dataset, w.features].packing_key()),
    message:
        "Pack the {wildcards.features} features of {wildcards.dataset}"
    shell:
        "actionformer pack {params.dataset} {wildcards.features} {params.options} >> {log} 2> >(tee -ia {log} >&2)"


rule audit:
    input:
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        store=lambda w: ancient(layout.store_of(ROWS[w.row])),
        database_manifest=lambda w: databases.manifest_path(
            layout.database_of(ROWS[w.row])
        ),
        store_manifest=lambda w: stores.manifest_path(layout.store_of(ROWS[w.row])),
    output:
        report=f"build/{EDITION}/audit/{{row}}.json",
    log:
        f"build/{EDITION}/logs/audit/{{row}}.log",
    benchmark:
        f"build/{EDITION}/benchmarks/audit/{{row}}.tsv"
    conda:
        "../../environment.yml"
    params:
        row=untracked(lambda w: row_name(ROWS[w.row])),
        options=untracked(ROW_OPTIONS),
        key=lambda w: digest(ROWS[w.row].audit_key()),
    message:
        "Audit annotations and features of {wildcards.row}"
    shell:
        "actionformer audit {params.row} {params.options} >> {log} 2> >(tee -ia {log} >&2)"

# Raw files -> one database per data set, one feature store per feature set, and an audit per row.


rule convert:
    input:
        files=lambda w: [
            ancient(path) for path in layout.annotation_files_of(DATASETS[w.dataset])
        ],
    output:
        database=f"build/{EDITION}/{{dataset}}/annotations.json",
        manifest=update(f"build/{EDITION}/{{dataset}}/annotations.manifest.json"),
    log:
        log_of("convert/{dataset}", folder="build"),
    benchmark:
        f"build/{EDITION}/benchmarks/convert/{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    params:
        command=command(
            lambda w: f"actionformer convert {dataset_argument(w.dataset)} {OPTIONS}",
            log_of("convert/{dataset}", folder="build"),
        ),
        attempt=attempt(log_of("convert/{dataset}", folder="build")),
        key=lambda w: keys.key(
            "convert",
            DATASETS[w.dataset].dataset,
            keys.stored(databases.manifest_path(layout.database(EDITION, w.dataset))),
        ),
        md5s=lambda w: md5s(
            layout.annotation_files_of(DATASETS[w.dataset]),
            databases.manifest_path(layout.database(EDITION, w.dataset)),
        ),
    message:
        "Convert the annotations of {wildcards.dataset}"
    shell:
        "{params.command}"


rule pack:
    input:
        source=lambda w: packed_from(STORES[w.dataset, w.features]),
    output:
        store=f"build/{EDITION}/{{dataset}}/{{features}}.h5",
        manifest=update(f"build/{EDITION}/{{dataset}}/{{features}}.json"),
    log:
        log_of("pack/{dataset}-{features}", folder="build"),
    benchmark:
        f"build/{EDITION}/benchmarks/pack/{{dataset}}-{{features}}.tsv"
    conda:
        "../../environment.yml"
    params:
        command=command(
            lambda w: f"actionformer pack {dataset_argument(w.dataset)} {shlex.quote(w.features)} {OPTIONS}",
            log_of("pack/{dataset}-{features}", folder="build"),
        ),
        attempt=attempt(log_of("pack/{dataset}-{features}", folder="build")),
        key=lambda w: keys.key(
            "pack",
            STORES[w.dataset, w.features].features,
            keys.stored(
                stores.manifest_path(
                    layout.feature_store(EDITION, w.dataset, w.features)
                )
            ),
        ),
        md5s=lambda w: md5s(
            [layout.features_of(STORES[w.dataset, w.features])],
            stores.manifest_path(layout.feature_store(EDITION, w.dataset, w.features)),
        ),
    message:
        "Pack the {wildcards.features} features of {wildcards.dataset}"
    shell:
        "{params.command}"


rule audit:
    input:
        database=lambda w: ancient(layout.database_of(ROWS[w.row])),
        store=lambda w: ancient(layout.store_of(ROWS[w.row])),
        database_manifest=lambda w: database_manifest(ROWS[w.row]),
        store_manifest=lambda w: store_manifest(ROWS[w.row]),
    output:
        report=update(f"build/{EDITION}/audit/{{row}}.json"),
    log:
        log_of("audit/{row}", folder="build"),
    benchmark:
        f"build/{EDITION}/benchmarks/audit/{{row}}.tsv"
    conda:
        "../../environment.yml"
    params:
        command=command(
            lambda w: f"actionformer audit {row_arguments(w.row)}",
            log_of("audit/{row}", folder="build"),
        ),
        attempt=attempt(log_of("audit/{row}", folder="build")),
        key=lambda w: keys.key(
            "audit", ROWS[w.row], keys.stored(layout.audit(ROWS[w.row]))
        ),
    message:
        "Audit annotations and features of {wildcards.row}"
    shell:
        "{params.command}"

# Video files -> features, for feature sets that name a folder of videos and an extractor (docs/video.md).

if MISSING_WEIGHTS:

    rule fetch_weights:
        output:
            file=update("{path}"),
        log:
            log_of("fetch_weights/{path}", folder="build"),
        benchmark:
            f"build/{EDITION}/benchmarks/fetch_weights/{{path}}.tsv"
        wildcard_constraints:
            path="|".join(re.escape(path) for path in MISSING_WEIGHTS),
        conda:
            "../../environment.yml"
        params:
            command=command(
                fetch_weights_command, log_of("fetch_weights/{path}", folder="build")
            ),
            attempt=attempt(log_of("fetch_weights/{path}", folder="build")),
        message:
            "Fetch {wildcards.path}"
        shell:
            "{params.command}"

    localrules:
        fetch_weights,


rule extract:
    input:
        videos=lambda w: ancient(layout.videos_of(EXTRACTED[w.dataset, w.features])),
        weights=lambda w: ancient(weights_of(EXTRACTED[w.dataset, w.features])),
    output:
        manifest=update(f"build/{EDITION}/extracted/{{dataset}}/{{features}}.json"),
    log:
        log_of("extract/{dataset}-{features}", folder="build"),
    benchmark:
        f"build/{EDITION}/benchmarks/extract/{{dataset}}-{{features}}.tsv"
    wildcard_constraints:
        features="|".join(re.escape(features) for _, features in EXTRACTED) or "none",
    conda:
        "../../environment.yml"
    # fewer where the machine has fewer
    threads: 8
    resources:
        mem_mb=8000,
        gpu=int(GPU),
        runtime=MINUTES_TO_EXTRACT,
    params:
        command=command(
            lambda w: f"actionformer extract --dataset {dataset_argument(w.dataset)}"
            f" --features {shlex.quote(w.features)} {OPTIONS}{DEVICE}",
            log_of("extract/{dataset}-{features}", folder="build"),
        ),
        attempt=attempt(log_of("extract/{dataset}-{features}", folder="build")),
        key=lambda w: extractor_key(EXTRACTED[w.dataset, w.features]),
        md5s=lambda w: md5s(
            [
                layout.videos_of(EXTRACTED[w.dataset, w.features]),
                weights_of(EXTRACTED[w.dataset, w.features]),
            ],
            layout.extracted_manifest(EXTRACTED[w.dataset, w.features]),
        ),
    message:
        "Extract the {wildcards.features} features of {wildcards.dataset}"
    shell:
        "{params.command}"

# Raw files, as their publishers made them: from the pinned version of the data, or from the publishers.

if CHOSEN.origin == "dvc":

    rule pull:
        output:
            files=RAW,
        log:
            f"build/{EDITION}/logs/pull.log",
        benchmark:
            f"build/{EDITION}/benchmarks/pull.tsv"
        conda:
            "../../environment.yml"
        message:
            "Pull the pinned version of the data"
        shell:
            "dvc pull --quiet {output.files:q} > {log} 2> >(tee -a {log} >&2)"

elif EDITION != "own":

    rule fetch:
        output:
            file=f"data/{EDITION}/{{dataset}}/{{file}}",
        log:
            f"build/{EDITION}/logs/fetch/{{dataset}}/{{file}}.log",
        benchmark:
            f"build/{EDITION}/benchmarks/fetch/{{dataset}}/{{file}}.tsv"
        conda:
            "../../environment.yml"
        params:
            options=OPTIONS,
        message:
            "Fetch {wildcards.file} of {wildcards.dataset}"
        shell:
            "actionformer fetch {wildcards.dataset} {params.options} --files {wildcards.file:q} > {log} 2> >(tee -a {log} >&2)"

# Raw files that are not there yet: from the pinned version of the data, or from their publishers.

if MISSING and CHOSEN.origin == "dvc":

    rule pull:
        output:
            files=MISSING,
        log:
            f"build/{EDITION}/logs/pull.log",
        benchmark:
            f"build/{EDITION}/benchmarks/pull.tsv"
        conda:
            "../../environment.yml"
        message:
            "Pull the pinned version of the data"
        shell:
            "dvc pull --quiet {output.files:q} >> {log} 2> >(tee -ia {log} >&2)"

elif MISSING:
    if workflow.is_main_process:
        print(plan.as_text(list(ROWS.values()), released=RELEASED), file=sys.stderr)

    rule fetch:
        output:
            file=f"data/{RAW_EDITION}/{{folder}}/{{file}}",
        log:
            f"build/{EDITION}/logs/fetch/{{folder}}/{{file}}.log",
        benchmark:
            f"build/{EDITION}/benchmarks/fetch/{{folder}}/{{file}}.tsv"
        wildcard_constraints:
            folder="[^/]+",
        conda:
            "../../environment.yml"
        params:
            options=untracked(
                f"--edition {RAW_EDITION} --params {shlex.quote(str(PARAMS))}{MIRROR}"
            ),
        message:
            "Fetch {wildcards.file} of {wildcards.folder}"
        shell:
            "actionformer fetch {wildcards.folder} {params.options}"
            " --files {wildcards.file:q} >> {log} 2> >(tee -ia {log} >&2)"

    AFTERWARDS.append(
        f"To make fetched files part of the version: dvc add data/{RAW_EDITION}/DATASET (never a whole `dvc add data`)"
    )

# Raw files that are not there yet: from the pinned version of the data, or from their publishers.
#
# A file that is there has no rule, so Snakemake can neither delete it nor make it again, whatever happens to the rules;
# `update` keeps one that is put there by hand while the workflow runs.

if MISSING and CHOSEN.origin == "dvc":

    rule pull:
        output:
            files=[update(path) for path in MISSING],
        log:
            log_of("pull", folder="build"),
        benchmark:
            f"build/{EDITION}/benchmarks/pull.tsv"
        conda:
            "../../environment.yml"
        params:
            command=command(
                lambda w: f"dvc pull --quiet {shlex.join(MISSING)}",
                log_of("pull", folder="build"),
            ),
            attempt=attempt(log_of("pull", folder="build")),
        message:
            "Pull the pinned version of the data"
        shell:
            "{params.command}"

elif MISSING:

    rule fetch:
        output:
            file=update(f"data/{RAW_EDITION}/{{path}}"),
        log:
            log_of("fetch/{path}", folder="build"),
        benchmark:
            f"build/{EDITION}/benchmarks/fetch/{{path}}.tsv"
        wildcard_constraints:
            path="|".join(
                re.escape(path.removeprefix(f"data/{RAW_EDITION}/"))
                for path in MISSING
            ),
        conda:
            "../../environment.yml"
        params:
            command=command(fetch_command, log_of("fetch/{path}", folder="build")),
            attempt=attempt(log_of("fetch/{path}", folder="build")),
        message:
            "Fetch {wildcards.path}"
        shell:
            "{params.command}"

    if CHOSEN.origin == "publisher":
        AFTERWARDS.append(
            "To make fetched files part of the version: actionformer pin DATASET --remote REMOTE (docs/data.md)"
        )

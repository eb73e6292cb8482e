# The last mile: tables, cards and the report from an archive of results alone, without features, weights or a GPU.

import shlex
from pathlib import Path

from snakemake.exceptions import WorkflowError

ARCHIVE = str(config["results"])
if not Path(ARCHIVE).is_file():
    raise WorkflowError(f"--config: results={ARCHIVE}: no such file")


# The pages are no outputs: Snakemake would delete those that lie here before the command could refuse to replace them.
rule rebuild:
    input:
        archive=ARCHIVE,
    output:
        done=touch("results/rebuilt.done"),
    log:
        "results/rebuild.log",
    conda:
        "../../environment.yml"
    params:
        archive=shlex.quote(ARCHIVE),
    message:
        "Make the pages of {input.archive}"
    shell:
        "set -o pipefail; actionformer rebuild {params.archive} 2>&1 | tee {log:q}"

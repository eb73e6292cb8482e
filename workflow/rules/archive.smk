# The last mile: tables, cards and the report from an archive of results alone, without features, weights or a GPU.

import shlex

from snakemake.exceptions import WorkflowError

from actionformer.errors import InputError
from actionformer.stages.archive import page_names

ARCHIVE = str(config["results"])
try:
    REBUILT = page_names(ARCHIVE)
except InputError as error:
    raise WorkflowError(str(error))


rule rebuild:
    input:
        archive=ARCHIVE,
    output:
        pages=REBUILT,
    log:
        "results/rebuild.log",
    conda:
        "../../environment.yml"
    params:
        archive=shlex.quote(ARCHIVE),
    message:
        "Make the pages of {input.archive}"
    shell:
        "actionformer rebuild {params.archive} 2>&1 | tee {log:q}"

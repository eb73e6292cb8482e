# Which environment the commands of rules run in: Snakemake's own, or the one that --sdm deploys (docs/cluster.md).

import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.enums import RerunTrigger
from snakemake.settings.types import DeploymentMethod
from snakemake.workflow import Workflow

from actionformer.params.files import CHECKOUT, IS_CHECKOUT

DEPLOYED = workflow.deployment_settings.deployment_method & {
    DeploymentMethod.CONDA,
    DeploymentMethod.APPTAINER,
}

# A product is no function of the environment that happens to be deployed (docs/rerun.md): the first call with --sdm would
# make everything again. Snakemake asks only its command line what makes a job run again.
Workflow.rerun_triggers = property(
    lambda self: self.dag_settings.rerun_triggers - {RerunTrigger.SOFTWARE_ENV}
)

if DEPLOYED and not IS_CHECKOUT:
    raise WorkflowError(
        "--sdm: expected a checkout, from which a deployed environment takes the program; it has the packages alone"
    )

if DeploymentMethod.APPTAINER in DEPLOYED:
    if not config["container"]:
        raise WorkflowError(
            "--sdm apptainer: name the image of this checkout's Containerfile: --config container=actionformer.sif"
        )
    # Apptainer shows a container the working folder, in which the checkout need not lie
    BOUND = f"--bind {shlex.quote(str(CHECKOUT))}"
    if BOUND not in workflow.deployment_settings.apptainer_args:
        workflow.deployment_settings.apptainer_args += f" {BOUND}"

if DEPLOYED:
    # environment.yml and the Containerfile hold what requirements.lock pins, and the checkout the program
    shell.prefix(
        f"export PYTHONPATH={shlex.quote(str(CHECKOUT / 'src'))};"
        ' actionformer() ( exec python -m actionformer "$@" ); '
    )
else:
    shell.prefix(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")

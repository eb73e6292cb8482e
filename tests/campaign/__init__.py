"""The reliability campaign: everything that users' disks, processes and files may do to a run.

    make campaign        all of it, and docs/reliability.md
    tests/test_campaign.py   a short share with a seed, and every case that once failed

`mutations` damages files, `targets` says who reads them, `fuzz` judges; `kills` ends processes at
every step, `disks` fills them up, `crowds` runs several at once.
"""

import os

# before MLflow is imported, as `actionformer` has it
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

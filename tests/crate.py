"""`make crate`: does roc-validator take an archive of results for a Workflow Run Crate?

It looks contexts up in the network, and without them checks next to nothing. So the copy that it is
given has the terms written out: those that `rocrate` brings, with the addresses that RO-Crate 1.1
has for the two that 1.3 moved, and md5.

    python tests/crate.py ARCHIVE VALIDATOR
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import rocrate

METADATA = "ro-crate-metadata.json"
PROFILE = "workflow-run-crate-0.5"
TERMS = {
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "FormalParameter": "https://bioschemas.org/FormalParameter",
    "md5": "https://w3id.org/ro/terms/workflow-run#md5",
}
# checks that must have been made, or the contexts were not understood
LEAST = 40


def main(archive: Path, validator: str) -> int:
    """Exit code 0 where every required check passes."""
    known = Path(rocrate.__file__).parent / "data/ro-crate.jsonld"
    context = json.loads(known.read_text())["@context"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        metadata = json.loads((folder / METADATA).read_text())
        metadata["@context"] = [context, TERMS]
        (folder / METADATA).write_text(json.dumps(metadata))
        report = folder.with_suffix(".json")
        command = [validator, "--no-interactive", "validate", "--offline", "--metadata-only"]
        command += ["--profile-identifier", PROFILE, "--output-format", "json"]
        command += ["--output-file", str(report), str(folder)]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        found = json.loads(report.read_text())
        report.unlink()
    for issue in found["issues"]:
        print(f"{issue['violatingEntity']}: {issue['message']}", file=sys.stderr)
    passed = found["statistics"]["total_passed_checks"]
    print(f"{archive}: {passed} required checks of {PROFILE} passed, {len(found['issues'])} failed")
    return int(not found["passed"] or passed < LEAST)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))

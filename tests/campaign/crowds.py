"""Several processes at once in one folder: each ends as if it were alone, or says who is there."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from actionformer import layout
from actionformer.commands.main import main
from actionformer.data.features import FeatureStore, pack
from actionformer.tracking.runs import log_epochs
from actionformer.tracking.store import open_store
from campaign import sandbox
from campaign.kills import STAGES, Campaign
from campaign.targets import CHANNELS

AT_ONCE = 8
# what a process may say that found another one at its work
OTHER = "another process"
LOG_CALLS = 2000


def same_command(campaign: Campaign, root: Path, stage: str) -> str:
    """Eight times the same stage at once; what is wrong, or nothing."""
    folder = root / "crowd/x"
    campaign.begin(stage, folder)
    done = sandbox.at_once([lambda: main(list(STAGES[stage]))] * AT_ONCE, folder)
    for one in done:
        is_refused = one.code == 1 and OTHER in one.said
        if one.trace or (one.code and not is_refused):
            return one.trace or f"exit code {one.code}: {one.said}"
    if all(one.code for one in done):
        return "none did it"
    return campaign.end(stage, folder)


def readers_beside_a_repack(root: Path) -> str:
    """Four processes read a store while it is packed anew from the same features, five times."""
    folder = root / "readers/x"
    shutil.rmtree(folder.parent, ignore_errors=True)
    (folder / "f").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(8):
        array = rng.normal(size=(2000, CHANNELS)).astype(np.float32)
        np.save(folder / f"f/v{i}.npy", array)
    sandbox.in_child(_repack, folder)

    def read() -> tuple[int, float]:
        total = 0.0
        for _ in range(20):
            store = FeatureStore(Path("s.h5"))
            total = float(sum(np.asarray(store[video], np.float64).sum() for video in store))
        return 0, total

    def repack() -> None:
        for _ in range(5):
            _repack()

    done = sandbox.at_once([read, read, read, read, repack], folder)
    traces = [one.trace for one in done if one.trace or one.code]
    if traces:
        return traces[0] or "a reader failed"
    sums = {one.result for one in done[:4]}
    return "" if len(sums) == 1 else f"readers saw {sums}"


def _repack() -> None:
    pack(Path("f"), Path("s.h5"), dim=CHANNELS)


def log_calls(root: Path) -> str:
    """2,000 metrics from eight processes: every one arrives."""
    folder = root / "log/x"
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)

    def log() -> None:
        client = open_store()
        table = client.get_experiment_by_name("Default")
        run = client.create_run(table.experiment_id).info.run_id
        for epoch in range(LOG_CALLS // AT_ONCE):
            log_epochs(run, [(epoch, 0, {"loss/total": float(epoch)})])

    done = sandbox.at_once([log] * AT_ONCE, folder)
    traces = [one.trace for one in done if one.trace or one.code < 0]
    if traces:
        return traces[0]
    with closing(sqlite3.connect(folder / layout.TRACKING_FILE)) as database:
        (count,) = database.execute("SELECT count(*) FROM metrics").fetchone()
    return "" if count == LOG_CALLS else f"{count} of {LOG_CALLS} arrived"


def damaged_databases(campaign: Campaign, root: Path) -> dict[str, str]:
    """mlflow.db deleted, empty, cut, overwritten: what is wrong with what `track` makes of it."""
    damages: dict[str, Callable[[bytes], bytes | None]] = {
        "deleted": lambda content: None,
        "empty": lambda content: b"",
        "cut to a page": lambda content: content[:4096],
        "cut in its middle": lambda content: content[: len(content) // 2],
        "no database": lambda content: b"not a database" * 1000,
        "its first page gone": lambda content: bytes(4096) + content[4096:],
    }
    found = {}
    for name, damage in damages.items():
        folder = root / "database/x"
        campaign.begin("track", folder)
        path = folder / layout.TRACKING_FILE
        content = damage(path.read_bytes())
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        found[name] = _tracked_again(campaign, folder, is_refused=bool(content))
    return found


def _tracked_again(campaign: Campaign, folder: Path, *, is_refused: bool) -> str:
    """`track` refuses a damaged database in one line, and makes it anew once it is away."""
    if is_refused:
        done = sandbox.in_child(lambda: main(["track"]), folder)
        if done.code != 1 or done.said.count("\n") != 1 or "damaged" not in done.said:
            return f"exit code {done.code}: {done.said} {done.trace}"
        (folder / layout.TRACKING_FILE).unlink()
    return campaign.end("track from nothing", folder)

"""What kind of disk a folder lies on: network file systems keep fewer promises than others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from actionformer.errors import InputError

NETWORK = frozenset(
    {
        *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "beegfs_nodev", "ceph", "glusterfs", "cifs"),
        *("smb3", "smbfs", "afs", "panfs", "wekafs", "pvfs2", "orangefs"),
    }
)
# of file systems in user space (fuse.sshfs, fuse.ceph-fuse, ...) these are of a disk here
LOCAL_FUSE = frozenset(
    {"fuse.ntfs", "fuse.ntfs-3g", "fuse.exfat", "fuse.ext2", "fuse.fuse-overlayfs"}
)
# options of a mount with which a lock of one machine is no lock on another
LOCAL_LOCKS = frozenset({"local_lock=all", "local_lock=flock", "localflock", "nolock"})


@dataclass(frozen=True)
class Disk:
    """A mounted file system."""

    kind: str
    options: frozenset[str]

    @property
    def is_network(self) -> bool:
        is_fuse = self.kind.startswith("fuse.") and self.kind not in LOCAL_FUSE
        return is_fuse or self.kind in NETWORK

    @property
    def local_locks(self) -> str:
        """The option that keeps locks from other machines; empty where there is none."""
        return next(iter(sorted(self.options & LOCAL_LOCKS)), "") if self.is_network else ""


def disk_of(folder: Path) -> Disk:
    """The disk that a folder lies on, or would."""
    path = folder.absolute().resolve()
    longest = -1
    found = Disk("unknown", frozenset())
    for mount in psutil.disk_partitions(all=True):
        place = Path(mount.mountpoint)
        # of two mounts in one place the later one lies on top
        if path.is_relative_to(place) and len(place.parts) >= longest:
            longest = len(place.parts)
            found = Disk(mount.fstype, frozenset(mount.opts.split(",")))
    return found


def refuse_database(path: Path) -> None:
    """SQLite's locks don't hold between machines: what several log there at once is lost.

    Raises:
        InputError: the database lies on a network file system.
    """
    disk = disk_of(path.parent)
    if disk.is_network:
        raise InputError(
            f"{path}: on a network file system ({disk.kind}), where SQLite loses what is logged at "
            "once; set MLFLOW_TRACKING_URI to a server's address (docs/mlflow.md) or, for one "
            "machine, to sqlite:////LOCAL/FOLDER/mlflow.db"
        )


def refuse_local_locks(folder: Path) -> None:
    """Jobs on several machines lock files of runs and stores against each other.

    Raises:
        InputError: a lock that one machine takes would be none on another.
    """
    disk = disk_of(folder)
    if disk.local_locks:
        raise InputError(
            f"{folder.resolve()}: mounted with {disk.local_locks} ({disk.kind}), so that a lock of "
            "one machine is none on another; use a folder that is mounted without it"
        )

"""What a lab has, started for real: PostgreSQL, a bucket, MLflow's server, ssh.

PostgreSQL and sshd are Debian's; the bucket is moto's (make env EXTRAS="postgres s3 ssh moto").
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import requests

BUCKET = "lab"
# what clients call MLflow's server
NAME = "mlflow.lab"
PATIENCE = 60.0


def lacking(*modules: str, programs: tuple[str, ...] = ()) -> str:
    """Which of these is not here, as a reason to skip; empty where all are."""
    gone = [name for name in modules if find_spec(name) is None]
    gone += [name for name in programs if program(name) is None]
    return f"not installed: {', '.join(gone)}" if gone else ""


def program(name: str) -> str | None:
    """Where a program lies; PostgreSQL's and sshd lie beside the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    places = [os.environ["PATH"], *map(str, versions), "/usr/sbin"]
    return shutil.which(name, path=os.pathsep.join(places))


def objects(keys: Mapping[str, str]) -> int:
    """How many objects the bucket holds."""
    import boto3

    client = boto3.client("s3", endpoint_url=keys["AWS_ENDPOINT_URL"])
    return int(client.list_objects_v2(Bucket=BUCKET)["KeyCount"])


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """A bucket of this machine; the variables by which DVC and MLflow find it."""
    import boto3
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer(port=port, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    keys |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": address}
    keys["MLFLOW_S3_ENDPOINT_URL"] = address
    try:
        boto3.client(
            "s3",
            endpoint_url=address,
            region_name=keys["AWS_DEFAULT_REGION"],
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        ).create_bucket(Bucket=BUCKET)
        yield keys
    finally:
        server.stop()


@contextmanager
def postgres() -> Iterator[str]:
    """A database server with an empty database; its address."""
    # root may not run it, and the folders of tests are root's alone
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    as_user: list[str] = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    port = free_port()
    data = folder / "data"

    def run(name: str, *arguments: str) -> None:
        command = [*as_user, str(program(name)), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)

    run("initdb", "--pgdata", str(data), "--auth", "trust", "--username", "mlflow", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "start", "--pgdata", str(data), "--wait", "--log", f"{folder}/log", "-o", options)
    try:
        yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "stop", "--pgdata", str(data), "--mode", "immediate")
        shutil.rmtree(folder)


class MlflowServer:
    """MLflow's server as docs/mlflow.md has it, which can be ended and started again."""

    def __init__(self, database: str, keys: Mapping[str, str], folder: Path) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._command = [
            *(str(Path(sys.executable).with_name("mlflow")), "server"),
            *("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
            *("--allowed-hosts", f"{NAME}:*,127.0.0.1:*"),
            *("--backend-store-uri", database),
            *("--artifacts-destination", f"s3://{BUCKET}/mlflow", "--serve-artifacts"),
        ]
        self._environment = os.environ | dict(keys)
        self._folder = folder

    def start(self) -> None:
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            try:
                requests.get(f"{self.address}/health", timeout=1).raise_for_status()
                return
            except requests.RequestException:
                assert self._process.poll() is None, (self._folder / "server.log").read_text()
                time.sleep(0.2)
        raise AssertionError((self._folder / "server.log").read_text())

    def start_again(self) -> None:
        """For those who come after a test that failed while the server was stopped."""
        if self._process.poll() is not None:
            self.start()

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def ssh(folder: Path) -> Iterator[dict[str, str]]:
    """An ssh server of this machine, for the user who runs the tests; DVC's options of a remote."""
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    port = free_port()
    config = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": folder / "sshd.pid",
        "StrictModes": "no",
        "PermitRootLogin": "yes",
        "Subsystem": "sftp internal-sftp",
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in config.items()))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    command = [str(program("sshd")), "-D", "-e", "-f", str(folder / "config")]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(command, stderr=log)
    try:
        wait_for(port)
        user = getpass.getuser()
        yield {"port": str(port), "user": user, "keyfile": str(folder / "user")}
    finally:
        running.terminate()
        running.wait()


def wait_for(port: int) -> None:
    """Until somebody listens."""
    began = time.monotonic()
    while True:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() - began < PATIENCE, f"nobody listens on {port}"
        time.sleep(0.1)

"""Finished products that several machines share: fetched instead of made.

    {address}/{stage}/{identity}/entry.json      what it is, who made it, md5 of its files
    {address}/{stage}/{identity}/{md5}-{name}    a file

A product's identity is its record's (`params.keys`): the params that its stage read, the content of
its inputs, and what the code computes from them. An entry is there once its entry.json is, which is
written last; no entry needs another one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from actionformer.errors import InputError, first_line
from actionformer.files.md5 import file_md5
from actionformer.files.writing import atomic_path
from actionformer.params import keys

ENTRY = "entry.json"


class Git(BaseModel):
    """The program that computed."""

    commit: str
    dirty: bool


class Environment(BaseModel):
    """What it ran in."""

    processor: str
    torch: str
    lock: str


class Session(BaseModel):
    """Who computed, on what; of a training also which of its epochs."""

    git: Git
    environment: Environment
    device: str
    precision: str = "float32"
    first_epoch: int = 0
    last_epoch: int = 0


def _check_session(given: dict[str, Any]) -> dict[str, Any]:
    """A session as it is, if it is one: what is fetched is what was shared, byte for byte."""
    Session.model_validate(given)
    return given


class File(BaseModel):
    """A file of a product."""

    md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    size: Annotated[int, Field(ge=0)]


class Entry(BaseModel):
    """What entry.json says."""

    made_with: dict[str, Any]
    files: dict[str, File]
    # as lineages have them
    made_by: Annotated[
        list[Annotated[dict[str, Any], AfterValidator(_check_session)]], Field(min_length=1)
    ]
    mlflow_run: str | None = None
    # for whoever looks through a cache: which product, and when it came
    name: str
    shared: datetime


class _Damaged(Exception):
    """An entry, or a file of it, is not what it says."""


def _nothing(entry: Entry) -> None:
    """What `fetch` does by default before it puts files in their place."""


class ResultCache:
    """A folder, or a bucket (s3://...), of finished products.

    What can't be read ends a job before it computes for hours what may be there. What is damaged
    is said on stderr and made anew.
    """

    def __init__(self, address: str) -> None:
        """Open a cache.

        Args:
            address: a folder that exists, or whatever fsspec opens: s3://bucket/folder, ...

        Raises:
            InputError: no such folder or bucket, or a library that is not installed.
        """
        self.address = address.rstrip("/")
        # identities of entries that are there, but of no use
        self._damaged: set[str] = set()
        with self._asking():
            try:
                self._files, self._root = url_to_fs(self.address, use_listings_cache=False)
            except ImportError as error:
                extra = " (`make env EXTRAS=s3`)" if address.startswith("s3:") else ""
                raise InputError(f"{address}: {first_line(error)}{extra}") from None
            self._refuse_absent()

    def _refuse_absent(self) -> None:
        """A misspelt name must be found before days of training are not shared."""
        if isinstance(self._files, LocalFileSystem):
            if not self._files.isdir(self._root):
                wanted = "a folder that exists, or s3://bucket/folder"
                raise InputError(f"{self.address}: no cache of results; expected {wanted}")
        elif self.address.startswith("s3:"):
            bucket = self._root.partition("/")[0]
            if not self._files.exists(bucket):
                raise InputError(f"{self.address}: no bucket '{bucket}' that can be read from here")

    def fetch(
        self,
        made: Mapping[str, Any],
        targets: Sequence[Path],
        ready: Callable[[Entry], None] = _nothing,
    ) -> Entry | None:
        """Put the files of a product in their place, if the cache has it; returns its entry.

        Args:
            made: the record of the product.
            targets: where its files go, each by its name; the first is put in its place last.
            ready: called when all have come and are whole, before any is in its place.

        Raises:
            InputError: the cache does not answer.
        """
        identity = keys.short_name(made)
        try:
            entry = self._entry(made)
            if entry is None:
                return None
            with ExitStack() as parts:
                for target in targets:
                    file = entry.files.get(target.name)
                    if file is None:
                        raise _Damaged(f"{ENTRY} lacks {target.name}")
                    part = parts.enter_context(atomic_path(target, file.size))
                    self._bring(self._file(made, target.name, file.md5), file, part)
                ready(entry)
        except _Damaged as why:
            self._damaged.add(identity)
            print(f"{self._folder(made)}: damaged ({why}); made anew", file=sys.stderr)
            return None
        return entry

    def keep(
        self,
        made: Mapping[str, Any],
        files: Sequence[Path],
        made_by: Sequence[Mapping[str, Any]],
        *,
        name: str,
        mlflow_run: str | None = None,
    ) -> bool:
        """Put a product there; says whether it did. One that is there and whole stays.

        Args:
            made: its record.
            made_by: who computed it, with device, precision and environment.
            name: what people call it.

        Raises:
            InputError: it can't be written there.
        """
        identity = keys.short_name(made)
        try:
            if identity not in self._damaged and self._entry(made) is not None:
                return False
        except _Damaged:
            self._damaged.add(identity)
        facts = {path.name: File(md5=file_md5(path), size=path.stat().st_size) for path in files}
        try:
            entry = Entry(
                made_with=dict(made),
                files=facts,
                made_by=[dict(session) for session in made_by],
                mlflow_run=mlflow_run,
                name=name,
                shared=datetime.now(UTC),
            )
        except ValidationError:
            raise InputError("what computed it is not known") from None
        content = entry.model_dump_json(indent=1).encode()
        with self._asking():
            self._files.makedirs(self._folder(made), exist_ok=True)
            for path in files:
                there = self._file(made, path.name, facts[path.name].md5)
                if identity in self._damaged or not self._has(there, path.stat().st_size):
                    self._files.put_file(str(path), there)
            self._files.pipe_file(f"{self._folder(made)}/{ENTRY}", content)
            if identity in self._damaged:
                self._remove_others(made, entry)
        self._damaged.discard(identity)
        return True

    def _entry(self, made: Mapping[str, Any]) -> Entry | None:
        """What the cache says of a product; None where it has none."""
        with self._asking():
            try:
                content = self._files.cat_file(f"{self._folder(made)}/{ENTRY}")
            except FileNotFoundError:
                return None
        try:
            entry = Entry.model_validate_json(content)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise _Damaged(f"{ENTRY}: {where} {error.errors()[0]['msg']}") from None
        found = {key: entry.made_with.get(key) for key in ("stage", "key", "inputs")}
        if found != {key: made[key] for key in found}:
            raise _Damaged(f"{ENTRY} is of another product")
        return entry

    def _bring(self, there: str, file: File, part: Path) -> None:
        """Bring a file, and see whether it is whole."""
        with self._asking():
            try:
                self._files.get_file(there, str(part))
            except FileNotFoundError:
                raise _Damaged(f"{there.rpartition('/')[2]} is gone") from None
        found = file_md5(part)
        if found != file.md5:
            raise _Damaged(f"{there.rpartition('/')[2]} has md5 {found}")

    def _remove_others(self, made: Mapping[str, Any], entry: Entry) -> None:
        """Take away what an entry doesn't name."""
        named = {f"{file.md5}-{name}" for name, file in entry.files.items()} | {ENTRY}
        for path in self._files.ls(self._folder(made), detail=False):
            if path.rpartition("/")[2] not in named:
                self._files.rm_file(path)

    def _has(self, there: str, size: int) -> bool:
        try:
            return bool(self._files.size(there) == size)
        except FileNotFoundError:
            return False

    def _folder(self, made: Mapping[str, Any]) -> str:
        return f"{self._root}/{made['stage']}/{keys.short_name(made)}"

    def _file(self, made: Mapping[str, Any], name: str, md5: str) -> str:
        return f"{self._folder(made)}/{md5}-{name}"

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Every store has errors of its own: whatever goes wrong is one line."""
        try:
            yield
        except (InputError, _Damaged):
            raise
        except Exception as error:
            raise InputError(f"{self.address}: {first_line(error)}") from None

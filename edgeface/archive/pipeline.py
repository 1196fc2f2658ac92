"""The plan of an archive, kept beside its shards, and its run on Ray Data.

Each input belongs to one shard for good, and a shard appears whole or not at all. So a run that
was killed goes on where it stopped, and no input is missing or found twice.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface import errors
from edgeface.archive.cluster import cluster
from edgeface.archive.places import TEMPORARY, absolute, find, locate, write_whole
from edgeface.archive.worker import Worker, schema, shard_name
from edgeface.bundle import load_bundle, shipped_models
from edgeface.detector import Detector
from edgeface.errors import (
    BackendUnavailableError,
    EdgeFaceError,
    InvalidOptionError,
    MissingDependencyError,
    missing_extra,
)
from edgeface.outputs.base import writing

if TYPE_CHECKING:
    from pyarrow import Table
    from pyarrow.fs import FileInfo

PLAN = "_inputs.parquet"
SETTINGS = b"edgeface"
SHARD = re.compile(r"part-\d{6,}\.parquet")
SHARD_SIZE = 64


@dataclass(frozen=True)
class Receipt:
    """One shard that was written.

    Attributes:
        shard: its number, from 0.
        inputs: files that it covers.
        faces: faces that it holds.
        errors: ``file: what went wrong`` of each file that failed.
    """

    shard: int
    inputs: int
    faces: int
    errors: list[str]


@dataclass(frozen=True)
class Summary:
    """What all shards hold together: files, files that failed, and faces."""

    inputs: int
    failed: int
    faces: int


class Archive:
    """Faces of many files, as Parquet shards in a folder.

    A row is a picture, a video's frame, or a file that failed: ``file``, ``frame``, ``width``,
    ``height``, ``error`` and ``faces``, a list of structs in pixels as in the CSV output.

    Args:
        inputs: files, folders, or addresses that pyarrow knows, such as ``s3://bucket/prefix``.
            On a cluster, local paths must be the same on every machine.
        out: folder or address of the shards. Where one was begun, it goes on, and inputs that
            are new are added.
        recursive: enter folders within folders.
        shard_size: files of one shard, the unit of work that a kill can lose.
        options: keyword arguments of ``Detector``; one thread each unless they say more.

    Attributes:
        total: number of files.
        pending: files of the shards that are still to be written, by shard.

    Raises:
        InvalidOptionError: an option is wrong, an input cannot be listed, or ``out`` was begun
            with another model or other thresholds.
        OutputError: nothing can be written to ``out``.
        MissingDependencyError: Ray or pyarrow is not installed.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        out: str,
        *,
        recursive: bool = False,
        shard_size: int = SHARD_SIZE,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        for package in ("pyarrow", "ray"):
            if importlib.util.find_spec(package) is None:
                raise missing_extra(package, "archive")
        if shard_size < 1:
            raise InvalidOptionError(f"expected shard_size of at least 1, got {shard_size}")
        self._out = absolute(out)
        defaults = inspect.signature(Detector).parameters.values()
        self._options = {option.name: option.default for option in defaults} | {**(options or {})}
        self._options["threads"] = self._options["threads"] or 1
        if self._options["model"] not in shipped_models():
            self._options["model"] = str(Path(self._options["model"]).absolute())
        settings = _settings(self._options)
        found = [file for name in inputs for file in find(name, recursive=recursive)]

        with writing(out):
            files, folder = locate(out)
            files.create_dir(folder, recursive=True)
        shards = self._read_plan(settings)
        known = {file for shard in shards for file in shard}
        new = list(dict.fromkeys(file for file in found if file not in known))
        if new or not shards:
            shards += [new[at : at + shard_size] for at in range(0, len(new), shard_size)]
            self._write_plan(shards, settings)
        self.total = len(known) + len(new)
        done = self._shards_on_disk()
        self.pending = {
            number: files for number, files in enumerate(shards) if shard_name(number) not in done
        }

    @property
    def remaining(self) -> int:
        """Number of files in shards that are still to be written."""
        return sum(map(len, self.pending.values()))

    def run(self, address: str = "local", *, workers: int | None = None) -> Iterator[Receipt]:
        """Write the pending shards, and yield a receipt as soon as each is there.

        Args:
            address: "local" starts Ray on this machine; "auto", "host:port" or "ray://host:port"
                joins a cluster that runs.
            workers: detectors at work; None: as many as the cluster has cores for.

        Raises:
            BackendUnavailableError: there is no such cluster.
            InferenceError: the workers fail, for reasons that are not in the files.
            OutputError: a shard cannot be written.
        """
        if workers is not None and workers < 1:
            raise InvalidOptionError(f"expected at least 1 worker, got {workers}")
        if not self.pending:
            return
        import ray
        import ray.data

        threads = self._options["threads"]
        with cluster(address, workers and workers * threads):
            cores = int(ray.cluster_resources().get("CPU", 1))
            size = min(workers or max(1, cores // threads), len(self.pending))
            rows = [{"shard": shard, "files": files} for shard, files in self.pending.items()]
            receipts = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                Worker,
                fn_constructor_args=(self._out, self._options),
                compute=ray.data.ActorPoolStrategy(size=size),
                num_cpus=threads,
            )
            for row in receipts.iter_rows():
                receipt = _receipt(row)
                del self.pending[receipt.shard]
                yield receipt
        self._remove_temporaries()

    def summary(self) -> Summary:
        """Read the shards and count."""
        import pyarrow.compute as pc
        import pyarrow.dataset

        file_system, folder = locate(self._out)
        paths = [f"{folder}/{name}" for name in sorted(self._shards_on_disk())]
        shards = pyarrow.dataset.dataset(paths, schema(), "parquet", file_system)
        inputs = failed = faces = 0
        for batch in shards.to_batches(columns=["frame", "error", "faces"]):
            inputs += pc.sum(pc.equal(pc.fill_null(batch["frame"], 0), 0)).as_py() or 0
            failed += len(batch) - batch["error"].null_count
            faces += pc.sum(pc.list_value_length(batch["faces"])).as_py() or 0
        return Summary(inputs, failed, faces)

    def _files(self) -> list[FileInfo]:
        from pyarrow.fs import FileSelector

        file_system, folder = locate(self._out)
        infos: list[FileInfo] = file_system.get_file_info(FileSelector(folder))
        return infos

    def _shards_on_disk(self) -> set[str]:
        return {info.base_name for info in self._files() if SHARD.fullmatch(info.base_name)}

    def _remove_temporaries(self) -> None:
        file_system, _ = locate(self._out)
        for info in self._files():
            if info.base_name.startswith(TEMPORARY):
                file_system.delete_file(info.path)

    def _read_plan(self, settings: dict[str, Any]) -> list[list[str]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not any(info.base_name == PLAN for info in self._files()):
            if orphans := self._shards_on_disk():
                raise InvalidOptionError(
                    f"expected {PLAN} beside {min(orphans)} in {self._out}, but it is missing; "
                    "choose another folder"
                )
            return []
        file_system, folder = locate(self._out)
        try:
            table: Table = pq.read_table(f"{folder}/{PLAN}", filesystem=file_system)
            begun = json.loads(table.schema.metadata[SETTINGS])
        except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise InvalidOptionError(
                f"expected the plan of an archive in {self._out}/{PLAN}, but it cannot be read "
                f"({error}); choose another folder"
            ) from error
        for name in settings:
            if begun.get(name) != settings[name]:
                raise InvalidOptionError(
                    f"expected {name} {begun.get(name)!r}, with which {self._out} was begun, got "
                    f"{settings[name]!r}; choose the same, or another folder"
                )
        shards: list[list[str]] = []
        for file, shard in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if shard == len(shards):
                shards.append([])
            shards[shard].append(file)
        return shards

    def _write_plan(self, shards: list[list[str]], settings: dict[str, Any]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [(file, number) for number, files in enumerate(shards) for file in files]
        columns = {"file": [file for file, _ in rows], "shard": [number for _, number in rows]}
        table = pa.table(columns).replace_schema_metadata({SETTINGS: json.dumps(settings)})
        data = io.BytesIO()
        pq.write_table(table, data, compression="zstd")
        write_whole(self._out, PLAN, data.getvalue())


def _receipt(row: Mapping[str, Any]) -> Receipt:
    """Return what a worker says that it wrote, or raise what stopped it."""
    if row["stopped"]:
        error: EdgeFaceError = getattr(errors, row["stopped"])(row["message"])
        raise error
    return Receipt(row["shard"], row["inputs"], row["faces"], list(row["errors"]))


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what faces depend on, having checked the options where this machine can."""
    try:
        with Detector(**options) as detector:
            bundle = detector.bundle
    except (BackendUnavailableError, MissingDependencyError):
        bundle = load_bundle(options["model"])  # the backend may be the workers' alone
    performance = ("model", "backend", "threads")
    chosen = {name: options[name] for name in sorted(options) if name not in performance}
    digest = hashlib.sha256("".join(sorted(one.sha256 for one in bundle.artifacts)).encode())
    settings = {"model": f"{bundle.name} {digest.hexdigest()[:12]}", **chosen}
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain

"""Files by local path or by address (``s3://bucket/key``), through pyarrow's file systems."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgeface.errors import InvalidImageError, InvalidOptionError
from edgeface.imageio import MAX_PIXELS, PICTURES, VIDEOS
from edgeface.outputs.base import writing

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

MAX_BYTES = 4 * MAX_PIXELS
TEMPORARY = "_tmp-"  # readers of Parquet folders skip names that begin with _


def absolute(name: str) -> str:
    """Return an address as it is, and a local path or ``file://`` address as an absolute path."""
    local = name.removeprefix("file://")
    return name if "://" in local else os.path.normpath(Path(local).absolute())


def locate(name: str) -> tuple[FileSystem, str]:
    """Return the file system of an address or path, and the path in it.

    Options of the file system may follow the address: ``s3://bucket/key?region=eu-west-1``.

    Raises:
        InvalidOptionError: the address is none that pyarrow knows, or holds a password.
    """
    from pyarrow.fs import LocalFileSystem

    if "://" not in absolute(name):
        return LocalFileSystem(), absolute(name)
    address, options = _split(name)
    scheme, _, rest = address.partition("://")
    host, _, key = rest.partition("/")
    if ":" in host.rpartition("@")[0]:
        raise InvalidOptionError(
            f"expected a {scheme}:// address without a password, which outputs would show; "
            "give it by the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    file_system, root = _root(f"{scheme}://{host}{options}")
    return file_system, str(PurePosixPath(root, key))


def is_video(file: str) -> bool:
    """Whether the suffix is a video's."""
    return _suffix(file) in VIDEOS


def find(name: str, *, recursive: bool) -> list[str]:
    """Return the pictures and videos of a folder, sorted, or the file itself.

    Raises:
        InvalidOptionError: it does not exist, cannot be listed, or is a folder without any.
    """
    from pyarrow.fs import FileSelector, FileType

    file_system, path = locate(name)
    try:
        kind = file_system.get_file_info(path).type
        if kind is FileType.File:
            return [absolute(name)]
        if kind is not FileType.Directory:
            raise InvalidOptionError(
                f"expected a file or folder, got {name}, which does not exist or is neither; "
                "check the address"
            )
        infos = file_system.get_file_info(FileSelector(path, recursive=recursive))
    except OSError as error:
        raise InvalidOptionError(
            f"expected a file or folder that can be listed, got {name} ({error}); "
            "check the address and your permissions"
        ) from error
    known = PICTURES | VIDEOS
    paths = sorted(
        info.path for info in infos if info.type is FileType.File and _suffix(info.path) in known
    )
    if not paths:
        remedy = "check the folder" if recursive else "enter its folders with recursive"
        raise InvalidOptionError(f"expected pictures or videos in {name}, got none; {remedy}")
    base, options = _split(absolute(name))
    return [f"{base.rstrip('/')}{found[len(path) :]}{options}" for found in paths]


def fetch(file: str) -> bytes | Path:
    """Return a remote picture's bytes; a local file's path as it is.

    Raises:
        InvalidImageError: it cannot be read, or is too large for a picture.
    """
    if "://" not in file:
        return Path(file)
    with _reading(file):
        file_system, path = locate(file)
        with file_system.open_input_file(path) as remote:
            if remote.size() > MAX_BYTES:
                raise InvalidImageError(
                    f"expected a picture of at most {MAX_BYTES} bytes, got {file} of "
                    f"{remote.size()}; is it a video?"
                )
            data: bytes = remote.read()
            return data


@contextmanager
def local_copy(file: str) -> Iterator[Path]:
    """Give the path of a local file, or of a copy of a remote one while the block runs.

    Raises:
        InvalidImageError: it cannot be read.
    """
    if "://" not in file:
        yield Path(file)
        return
    with tempfile.NamedTemporaryFile(suffix=_suffix(file)) as copy:
        with _reading(file):
            file_system, path = locate(file)
            with file_system.open_input_stream(path) as remote:
                shutil.copyfileobj(remote, copy)
        copy.flush()
        yield Path(copy.name)


def write_whole(folder: str, name: str, data: bytes) -> None:
    """Write a file of a folder so that readers see it whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(folder):
        file_system, path = locate(folder)
        temporary = f"{path}/{TEMPORARY}{uuid.uuid4().hex}"
        with file_system.open_output_stream(temporary) as stream:
            stream.write(data)
        file_system.move(temporary, f"{path}/{name}")


def _split(name: str) -> tuple[str, str]:
    """Part an address and its options, which begin with a question mark."""
    address, mark, options = name.rpartition("?") if "://" in name else ("", "", name)
    return (address, mark + options) if mark else (name, "")


def _suffix(file: str) -> str:
    return PurePosixPath(_split(file)[0]).suffix.lower()


@lru_cache
def _root(address: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem

    try:
        file_system, root = FileSystem.from_uri(address)
    except (OSError, ValueError) as error:
        raise InvalidOptionError(
            f"expected a path, or an address that pyarrow knows (s3://, gs://, hdfs://), got "
            f"{address} ({error})"
        ) from error
    return file_system, root


@contextmanager
def _reading(file: str) -> Iterator[None]:
    try:
        yield
    except (OSError, InvalidOptionError) as error:
        raise InvalidImageError(
            f"expected a file that can be read, got {file} ({error}); "
            "check the address and your permissions"
        ) from error

# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: what is true, and how that is known.

The set is found as the program finds it: ``folder``, else the environment's ``NVFP4_GOLDEN_DIR``, else ``golden/`` above the
working directory. The wheel does not carry it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from ._arrays import core, to_numpy

__all__ = ["File", "Golden", "files", "load"]


class File(NamedTuple):
    """A row of the manifest."""

    path: Path
    kind: str  #: mma, convert, convert-digest or quantize
    subject: str  #: unit, conversion or convention
    provenance: str  #: hardware, published, vendor-software, model or exact
    source: str  #: device, driver, toolkit, date; or software and version
    cases: int
    sha256: str


class Golden(NamedTuple):
    """The tensors of a golden file by name, and its metadata."""

    tensors: dict[str, Any]
    metadata: dict[str, str]


def files(
    match: str = "", kind: Optional[str] = None, provenance: Optional[str] = None, folder: Union[str, os.PathLike[str], None] = None
) -> list[File]:
    """The files whose subject or path contains ``match``, of one kind and provenance if given. ValueError without a set.

    >>> import nvfp4
    >>> [f.cases for f in nvfp4.golden.files("o_proj_activation", provenance="hardware")]
    [1]
    """
    named = os.fspath(folder) if folder is not None else os.environ.get("NVFP4_GOLDEN_DIR", "")
    where, rows = core.golden_files(named)
    return [
        File(Path(where) / file, *rest)
        for file, *rest in rows
        if match in f"{rest[1]} {file}" and kind in (None, rest[0]) and provenance in (None, rest[2])
    ]


def load(file: Union[File, str, os.PathLike[str]]) -> Golden:
    """Reads a golden file: text (MMA, conversions) by columns, in words as :func:`nvfp4.mma` takes them, or tensors.

    Of a row of :func:`files` the checksum is verified first; ValueError where it differs. Format: golden/README.md.

    >>> import nvfp4
    >>> file = nvfp4.golden.files("sm_90:wgmma.k16.f32.bf16", kind="mma", provenance="hardware")[0]
    >>> words = nvfp4.golden.load(file).tensors
    >>> words["a"].dtype, words["a"].shape[1]
    (dtype('uint16'), 16)
    """
    path = os.fspath(file.path if isinstance(file, File) else file)
    if isinstance(file, File) and core.file_sha256(path) != file.sha256:
        raise ValueError(f"{path}: sha256 differs from the manifest: the file was changed")
    tensors, metadata = core.read_file(path)
    return Golden({name: to_numpy(t) for name, t in tensors.items()}, dict(metadata))

# SPDX-License-Identifier: Apache-2.0
"""What there is: units, conversions, conventions, recipes."""

from __future__ import annotations

import json
from typing import Any

from ._arrays import core


def units(match: str = "") -> list[dict[str, Any]]:
    """The catalogue, architecture x instruction, of names that contain ``match``: what ``nvfp4 info --units --json`` prints.

    >>> import nvfp4
    >>> nvfp4.units("sm_120:mma.m16n8k64")[0]["evidence"]
    'published'
    """
    return list(json.loads(core.units(match)))


def conversions(match: str = "") -> list[dict[str, Any]]:
    """Conversion instructions: name, format read, format written.

    >>> import nvfp4
    >>> nvfp4.conversions("cvt.rn.satfinite.e4m3x2.f32")[0]["to"]
    'e4m3'
    """
    return list(json.loads(core.conversions(match)))


def conventions(match: str = "") -> list[dict[str, Any]]:
    """Quantization presets, with evidence, source and the releases for which they are true.

    >>> import nvfp4
    >>> [c["convention"] for c in nvfp4.conventions("vllm")]
    ['vllm']
    """
    return list(json.loads(core.conventions(match)))


def recipes() -> dict[str, dict[str, Any]]:
    """The built-in training recipes by name, every field written out.

    >>> import nvfp4
    >>> "chon" in nvfp4.recipes()
    True
    """
    return {name: json.loads(text) for name, text in core.recipes()}

# SPDX-License-Identifier: Apache-2.0
"""What the tests of nvfp4.torch share. Without PyTorch they are skipped."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(scope="session")
def nvfp4_run(program):
    """Runs the program; its output. Fails where its exit code is another than expected."""

    def call(*arguments: object, code: int = 0) -> str:
        done = program(*arguments, check=False)
        assert done.returncode == code, f"{arguments}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    return call

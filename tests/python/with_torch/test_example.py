# SPDX-License-Identifier: Apache-2.0
"""The example script, under torchrun and alone."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

ROOT = pathlib.Path(__file__).parents[3]
SCRIPT = ROOT / "tools" / "python" / "examples" / "pretrain_two_recipes.py"


@pytest.mark.parametrize("launcher", [["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"], []])
def test_pretraining_under_two_recipes(launcher):
    small = ["--steps", "12", "--hidden", "64", "--layers", "2", "--length", "48", "--batch", "2"]
    command = [sys.executable, *launcher, str(SCRIPT), str(ROOT / "README.md"), *small, *(["--shard"] if launcher else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
    losses = {name: [float(x) for x in re.findall(rf"^{name} +step +\d+  loss ([\d.]+)$", done.stdout, re.M)]
              for name in ("nvfp4", "chon")}
    for each in losses.values():
        assert len(each) == 3 and each[-1] < each[0]  # steps 0, 10 and 11
    assert losses["nvfp4"][1:] != losses["chon"][1:]
    assert re.search(r"^chon: last loss [\d.]+, [+-][\d.]+ to nvfp4$", done.stdout, re.M)

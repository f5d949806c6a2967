# SPDX-License-Identifier: Apache-2.0
"""several_gpus.py, small and on the CPU: one process and two give the same words; a rank is killed, and the run goes on."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

HERE = pathlib.Path(__file__).parent
TINY = ["--size", "tiny", "--sequences", "4", "--length", "64"]


def run(out: pathlib.Path, *options: str, ranks: int = 2, fails: bool = False) -> dict:
    program = [str(HERE / "several_gpus.py"), *TINY, *options, "--out", str(out)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MASTER_PORT": "29541"}
    done = subprocess.run([sys.executable, *launcher, *program], capture_output=True, text=True, check=False, timeout=300, env=env)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return {} if fails else json.loads(out.read_text())


def test_ranks_and_micro_batches_give_the_same_words(tmp_path):
    one = run(tmp_path / "1.json", "--recipe", "nvfp4", "--steps", "4", "--micro-batches", "2", ranks=1)
    for kind in ("ddp", "fsdp"):
        many = run(tmp_path / f"{kind}.json", "--recipe", "nvfp4", "--steps", "4", "--kind", kind)
        assert many["losses"] == one["losses"]
        assert many["parameters"] == one["parameters"]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_killed_rank_changes_no_word(tmp_path, kind):
    options = ["--recipe", "chon", "--steps", "6", "--kind", kind, "--every", "2", "--checkpoint"]
    run(tmp_path / "killed.json", *options, str(tmp_path / "a"), "--kill", "5", fails=True)
    resumed = run(tmp_path / "resumed.json", *options, str(tmp_path / "a"))
    whole = run(tmp_path / "whole.json", *options, str(tmp_path / "b"))
    assert resumed["first"] == 4
    assert resumed["losses"] == whole["losses"][4:]
    assert resumed["channels"] == whole["channels"][4:]
    assert resumed["parameters"] == whole["parameters"]
    assert resumed["channels_equal_on_all_ranks"] and whole["channels_equal_on_all_ranks"]

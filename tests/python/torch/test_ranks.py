# SPDX-License-Identifier: Apache-2.0
"""DistributedDataParallel and FSDP2 under torchrun, with processes on the CPU: what ranks agree on, and their words.

The number of processes is a parameter of the tests: NVFP4_RANKS="2 4 8" tries others.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from conftest import assert_same_bits, words
from test_models import ROLES, Toy

from nvfp4 import _nvfp4
from nvfp4.torch import convert, converted, step

HERE = pathlib.Path(__file__).parent
RANKS = [int(n) for n in os.environ.get("NVFP4_RANKS", "2 4").split()]


@pytest.fixture
def launched(tmp_path):
    def launch(ranks: int, kind: str, recipe: str) -> list[dict]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
                   str(HERE / "ranks_program.py"), str(tmp_path), kind, recipe]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(ranks)]

    return launch


def all_ranks_recipe(tmp_path) -> str:
    """NVFP4 to nearest with the amax of all ranks: a row's words do not depend on where the others are."""
    recipe = {"name": "all-ranks", "amax": "all-ranks", "linears": {"plain": {"fprop": {"a": "nvfp4", "b": "nvfp4"},
              "dgrad": {"a": "nvfp4", "b": "nvfp4"}, "wgrad": {"a": "nvfp4", "b": "nvfp4"}}}, "default": "plain"}
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    return str(path)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("ranks", RANKS)
def test_ranks_agree_and_draw_the_words_of_their_micro_batches(launched, ranks, kind):
    from ranks_program import STEPS, batch

    seen = launched(ranks, kind, "hcp")
    for at in range(STEPS):
        for rank, each in enumerate(seen):
            assert each["clock"][at][1:5] == [at, 0, rank, ranks]
            assert len(each["channels"][at]) == 8
            for path, channels in each["channels"][at].items():
                assert (channels >= 0).all() and torch.equal(channels, seen[0]["channels"][at][path])
            for name in ("gradients", "parameters"):
                for a, b in zip(each[name][at], seen[0][name][at], strict=True):
                    assert_same_bits(a, b)
    # by itself, rank r's pass is micro-batch r of the step, with the channels that all chose
    one = convert(Toy(), "hcp", ROLES, layers=8, seed=11)
    sums = None
    for rank, each in enumerate(seen):
        with step(11, 0, 0):
            one(batch(0).chunk(ranks)[0])  # chooses
        for path, module in converted(one).items():
            if module.hot_channels is not None:
                module.hot_channels.copy_(each["channels"][0][path])
        one.zero_grad()
        if rank == 0:
            for module in converted(one).values():  # chosen already
                module.training = False
        with step(11, 0, rank):
            out = one(batch(0).chunk(ranks)[rank])
            out.square().mean().backward()
        for module in converted(one).values():
            module.training = True
        assert_same_bits(out.detach(), each["outputs"][0], f"rank {rank}")
        grads = [p.grad / ranks for p in one.parameters()]
        sums = grads if sums is None else [a + b for a, b in zip(sums, grads, strict=True)]
    for got, want in zip(seen[0]["gradients"][0], sums, strict=True):
        # the order of the sum over ranks is the communication library's
        assert torch.allclose(got, want, rtol=1e-6, atol=1e-7 * float(want.abs().max()))
    if ranks == 2 and kind == "ddp":  # two terms have one order
        for got, want in zip(seen[0]["gradients"][0], sums, strict=True):
            assert_same_bits(got, want)


@pytest.mark.parametrize("ranks", RANKS[:1])
def test_scores_are_the_mean_over_ranks_in_their_order(launched, ranks):
    from ranks_program import batch

    seen = launched(ranks, "ddp", "hcp")
    one = convert(Toy(), "hcp", ROLES, layers=8, seed=11)
    first = one.layers[0].self_attn["q_proj"]
    total = None
    for rank in range(ranks):
        x = batch(0).chunk(ranks)[rank]
        scores = torch.empty(64)
        with step(11, 0, 0):
            torch.ops.nvfp4.choose_channels(x, first.weight.detach(), torch.empty(16, dtype=torch.int32), scores,
                                            first._clock.tensor, "fprop", first._spec)
        total = scores if total is None else total + scores
    mean = total / ranks
    expected = sorted(range(64), key=lambda j: (-float(mean[j]), j))[:16]
    assert seen[0]["channels"][0]["layers.0.self_attn.q_proj"].tolist() == expected


@pytest.mark.parametrize("ranks", RANKS)
def test_amax_of_all_ranks(launched, tmp_path, ranks):
    from ranks_program import batch

    own, every = launched(ranks, "ddp", "nvfp4-plain"), launched(ranks, "ddp", all_ranks_recipe(tmp_path))
    outputs = {}
    for name, recipe in (("own", "nvfp4-plain"), ("every", all_ranks_recipe(tmp_path))):
        model = convert(Toy(), recipe, ROLES, layers=8, seed=11)
        outputs[name] = model(batch(0)).detach()
    whole = torch.cat([each["outputs"][0] for each in every])
    assert_same_bits(whole, outputs["every"])
    assert not torch.equal(words(torch.cat([each["outputs"][0] for each in own])), words(outputs["own"]))
    assert _nvfp4.linear_recipe(all_ranks_recipe(tmp_path), "qwen3")[0] == "all-ranks"

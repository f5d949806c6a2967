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

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from bits import assert_same_bits, words
from ranks_program import STEPS, batch
from test_convert import ROLES, Toy

from nvfp4 import _nvfp4
from nvfp4.torch import convert, converted, step

HERE = pathlib.Path(__file__).parent
RANKS = [int(n) for n in os.environ.get("NVFP4_RANKS", "2 4").split()]


@pytest.fixture(scope="module")
def all_ranks_recipe(tmp_path_factory) -> str:
    """NVFP4 to nearest with the amax of all ranks: a row's words do not depend on where the others are."""
    recipe = {"name": "all-ranks", "amax": "all-ranks", "linears": {"plain": {"fprop": {"a": "nvfp4", "b": "nvfp4"},
              "dgrad": {"a": "nvfp4", "b": "nvfp4"}, "wgrad": {"a": "nvfp4", "b": "nvfp4"}}}, "default": "plain"}
    path = tmp_path_factory.mktemp("recipe") / "recipe.json"
    path.write_text(json.dumps(recipe))
    return str(path)


@pytest.fixture(scope="module", params=RANKS)
def launched(request, tmp_path_factory, all_ranks_recipe) -> dict[str, list[dict]]:
    """What each rank saw, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    cases = ["ddp hcp", "fsdp hcp", "ddp nvfp4-plain", f"ddp {all_ranks_recipe}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(request.param),
               str(HERE / "ranks_program.py"), str(folder), *cases]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    files = [torch.load(folder / f"rank-{rank}.pt") for rank in range(request.param)]
    return {case: [file[case] for file in files] for case in cases}


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_ranks_agree_and_draw_the_words_of_their_micro_batches(launched, kind):
    seen = launched[f"{kind} hcp"]
    ranks = len(seen)
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


def test_scores_are_the_mean_over_ranks_in_their_order(launched):
    seen = launched["ddp hcp"]
    ranks = len(seen)
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


def test_amax_of_all_ranks(launched, all_ranks_recipe):
    own, every = launched["ddp nvfp4-plain"], launched[f"ddp {all_ranks_recipe}"]
    outputs = {}
    for name, recipe in (("own", "nvfp4-plain"), ("every", all_ranks_recipe)):
        model = convert(Toy(), recipe, ROLES, layers=8, seed=11)
        outputs[name] = model(batch(0)).detach()
    whole = torch.cat([each["outputs"][0] for each in every])
    assert_same_bits(whole, outputs["every"])
    assert not torch.equal(words(torch.cat([each["outputs"][0] for each in own])), words(outputs["own"]))
    assert _nvfp4.linear_recipe(all_ranks_recipe, "qwen3")[0] == "all-ranks"

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pretrains a small Qwen3 on the bytes of a text, once for each recipe, with the same start and the same data.

    torchrun --nproc-per-node 2 pretrain_two_recipes.py book.txt --recipes nvfp4 chon --steps 200
    python3 pretrain_two_recipes.py book.txt            # one process
    torchrun ... pretrain_two_recipes.py book.txt --shard   # FSDP2 instead of DistributedDataParallel

Every product of a linear layer has the bits of an FP4 tensor core, on CPUs and on GPUs. Needs torch and transformers.
"""

import argparse
import os

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import Qwen3Config, Qwen3ForCausalLM

import nvfp4.torch


def model_of(options):
    config = Qwen3Config(vocab_size=256, hidden_size=options.hidden, intermediate_size=3 * options.hidden,
                         num_hidden_layers=options.layers, num_attention_heads=4, num_key_value_heads=2,
                         head_dim=options.hidden // 4, max_position_embeddings=options.length, use_cache=False)
    torch.manual_seed(1)
    return Qwen3ForCausalLM(config)


def train(recipe, text, options, device, rank, ranks):
    """The mean loss over all ranks of each step."""
    model = model_of(options).to(device)
    nvfp4.torch.convert(model, recipe, seed=1)  # before it is wrapped
    wrapped = model
    if ranks > 1 and options.shard:
        mesh = init_device_mesh(device.type, (ranks,))
        for block in model.model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    elif ranks > 1:
        wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-3)
    losses = []
    for step in range(options.steps):
        draw = torch.Generator().manual_seed(step)  # the same batch of all ranks everywhere, of which each takes its part
        starts = torch.randint(0, len(text) - options.length, (options.batch * ranks,), generator=draw)
        mine = starts[rank * options.batch:(rank + 1) * options.batch].tolist()
        tokens = torch.stack([text[i:i + options.length] for i in mine]).to(device, torch.long)
        loss = wrapped(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach().clone()
        if ranks > 1:
            dist.all_reduce(mean)
        losses.append(mean.item() / ranks)
        if rank == 0 and (step % 10 == 0 or step + 1 == options.steps):
            print(f"{recipe:8} step {step:4}  loss {losses[-1]:.4f}", flush=True)
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text")
    parser.add_argument("--recipes", nargs="+", default=["nvfp4", "chon"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4, help="sequences a rank")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--shard", action="store_true", help="FSDP2")
    options = parser.parse_args()
    ranks, rank, local_ranks, gpu = (int(os.environ.get(name, default)) for name, default in (
        ("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))
    # NCCL wants a GPU for each rank of a machine
    device = torch.device("cuda", gpu) if torch.cuda.device_count() >= local_ranks else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if ranks > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    with open(options.text, "rb") as file:
        text = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    results = {recipe: train(recipe, text, options, device, rank, ranks) for recipe in options.recipes}
    if rank == 0:
        first = options.recipes[0]
        for recipe, losses in results.items():
            print(f"{recipe}: last loss {losses[-1]:.4f}, {losses[-1] - results[first][-1]:+.4f} to {first}")
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()

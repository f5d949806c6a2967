#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds a convolutional network of `nvfp4 cnn` under fp32 against PyTorch in FP64: loss, gradients of all parameters,
running means and variances of one step.

compare_pytorch_cnn.py [--nvfp4 PROGRAM] [--size tiny|small|cifar] [--images 16] [--seed 1]

Needs torch and safetensors. The program trains one step on files that are written here, with a learning rate too small to
change a weight and without clipping, so that its checkpoint has the initial weights and, as AdamW's first moments, a tenth
of the gradients. Exit code 1 where something is further off than 1e-5 of its tensor's largest value. That happens where a
pixel lies so near a kink of ReLU or of the pool that FP32 takes the other side: then one channel of a convolution and what
lies before it are off; another --seed tells."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file
from torch.nn import functional as F


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--nvfp4", default="build/nvfp4")
    arguments.add_argument("--size", default="small")
    arguments.add_argument("--images", type=int, default=16)
    arguments.add_argument("--seed", type=int, default=1)
    a = arguments.parse_args()
    random = np.random.default_rng(1)
    records = random.integers(0, 256, (a.images, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(a.images) % 10
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        (here / "train.bin").write_bytes(records.tobytes())
        subprocess.run(
            [a.nvfp4, "cnn", "--recipe", "fp32", "--size", a.size, "--data", here / "train.bin", "--validation-data",
             here / "train.bin", "--plain", "--seed", str(a.seed), "--batch", str(a.images), "--steps", "1", "--warmup", "0",
             "--lr", "1e-30", "--weight-decay", "0", "--clip", "0", "--out", here / "run"],
            check=True, stdout=subprocess.DEVNULL)
        log = json.loads((here / "run/log.jsonl").read_text().splitlines()[0])
        tensors = load_file(str(here / "run/checkpoint.safetensors"))

    # every image once, in an order that the mean loss and batch statistics do not see
    mean, deviation = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])
    pixels = torch.from_numpy(records[:, 1:].copy()).reshape(-1, 3, 32, 32).float() / 255
    x = ((pixels - mean[:, None, None]) / deviation[:, None, None]).double()
    labels = torch.from_numpy(records[:, 0].astype(np.int64))
    parameters, running = {}, {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            continue
        value = torch.from_numpy(value).double()
        (running if ".running_" in name else parameters)[name] = value
    for p in parameters.values():
        p.requires_grad_(True)
    stored = {name: tensors[name] for name in running}
    running = {name: torch.zeros_like(v) if name.endswith("mean") else torch.ones_like(v) for name, v in running.items()}

    def norm(path, z):
        return torch.relu(F.batch_norm(z, running[path + ".running_mean"], running[path + ".running_var"],
                                       parameters[path + ".weight"], parameters[path + ".bias"], True, 0.1, 1e-5))

    block = 0
    while f"features.{block}.0.conv.weight" in parameters:
        i = 0
        while f"features.{block}.{i}.conv.weight" in parameters:
            path = f"features.{block}.{i}"
            filters = parameters[path + ".conv.weight"].permute(0, 3, 1, 2)  # (outputs, channels, kernel, kernel)
            x = norm(path + ".norm", F.conv2d(x, filters, padding=1))
            i += 1
        x = F.max_pool2d(x, 2)
        block += 1
    x = x.permute(0, 2, 3, 1).flatten(1)
    if "fc.weight" in parameters:
        x = norm("fc.norm", F.linear(x, parameters["fc.weight"]))
    loss = F.cross_entropy(F.linear(x, parameters["head.weight"], parameters["head.bias"]), labels)
    loss.backward()

    worst = abs(log["loss"] - loss.item())
    print(f"loss {log['loss']:.7f}, PyTorch {loss.item():.7f}")
    far = [("loss", worst)] if worst > 1e-5 else []
    largest = ("", 0.0)
    for name, want in [(n, p.grad) for n, p in parameters.items()] + list(running.items()):
        got = torch.from_numpy(stored[name] if name in stored else tensors["optimizer.m." + name] / np.float32(0.1)).double()
        off = ((got - want).abs().max() / want.abs().max()).item()
        largest = max(largest, (name, off), key=lambda t: t[1])
        if not off < 1e-5:
            far.append((name, off))
    print(f"{len(parameters)} gradients and {len(running)} running values, the furthest off: {largest[0]}, {largest[1]:.1e}")
    for name, off in far:
        print(f"FAR: {name} {off:.1e}")
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())

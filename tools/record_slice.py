# SPDX-License-Identifier: Apache-2.0
"""Records the linear layers of a PyTorch model for `nvfp4 replay`: what each reads, its weight, and the gradient it gets.

    with record_slice.record(model, "slice.safetensors", family="qwen3"):
        loss = model(tokens, labels=labels).loss
        loss.backward()

Then: nvfp4 replay slice.safetensors --recipe chon --against nvfp4
"""
import contextlib

import torch
from safetensors.torch import save_file


@contextlib.contextmanager
def record(model, path, family=None, layers=None, only=lambda name: True):
    """family (gla, qwen3, qwen2.5, gdn) and layers decide which of a recipe's rules apply; only(name) chooses modules."""
    tensors, handles, done = {}, [], set()

    def keep(name, tensor):
        dtype = torch.float32 if tensor.dtype == torch.float64 else tensor.dtype
        tensors[name] = tensor.detach().to("cpu", dtype, copy=True).contiguous()

    def hook(name):
        def forward(module, args, output):
            if name in done:  # of several calls, the first that is differentiated
                return
            keep("input/" + name, args[0])
            keep("weight/" + name, module.weight)
            if module.bias is not None:
                keep("bias/" + name, module.bias)
            if output.requires_grad:
                done.add(name)
                output.register_hook(lambda grad: keep("output_grad/" + name, grad))
        return forward

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and only(name):
            handles.append(module.register_forward_hook(hook(name)))
    try:
        yield tensors
        known = {"family": family, "layers": layers}
        save_file(tensors, path, metadata={k: str(v) for k, v in known.items() if v is not None})
    finally:
        for handle in handles:
            handle.remove()

# SPDX-License-Identifier: Apache-2.0
"""Speed of PyTorch's scaled_dot_product_attention by backend, on the shapes that
`nvfp4-gpu speed attention` uses: 16384 tokens, model width 2048, BF16. Median of five rounds of ten."""
import statistics
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def milliseconds(work):
    for _ in range(3):
        work()
    times = []
    for _ in range(5):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(10):
            work()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 10)
    return statistics.median(times)


def measure(name, batch, length, heads, dim, causal):
    q, k, v, g = (torch.randn(batch, length, heads, dim, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
                  for _ in range(4))
    for x in (q, k, v):
        x.requires_grad_(True)
    operations = batch * heads * length * length * dim * (0.5 if causal else 1.0) * 1e-9
    with sdpa_kernel(BACKENDS[name]):
        attend = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        with torch.no_grad():
            forward = milliseconds(attend)
        o = attend()
        backward = milliseconds(lambda: torch.autograd.grad(o, (q, k, v), g, retain_graph=True))
    print(f"{name:5} {batch}x{length:<5} heads {heads} dim {dim:<3} {'causal' if causal else 'full  '} "
          f"fwd {forward:7.3f} ms {4 * operations / forward:6.1f}  bwd {backward:7.3f} ms "
          f"{10 * operations / backward:6.1f} TFLOP/s", flush=True)


def main():
    if not torch.cuda.is_available():
        print("no suitable device", file=sys.stderr)
        return 3
    print(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    for dim in (128, 64):
        for causal in (True, False):
            for length in (1024, 4096, 16384):
                for name in BACKENDS:
                    try:
                        measure(name, 16384 // length, length, 2048 // dim, dim, causal)
                    except RuntimeError as error:
                        print(f"{name:5} dim {dim} length {length}: {str(error).splitlines()[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

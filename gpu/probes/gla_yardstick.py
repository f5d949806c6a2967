# SPDX-License-Identifier: Apache-2.0
# How fast flash-linear-attention's chunk_gla (Triton) is on the GPU at hand, forward and backward, at the first shape that
# nvfp4-gpu speed gla times. BF16 q, k, v; FP32 log gates. Needs torch, triton and fla-core. Trying all of Triton's
# configurations takes many minutes, so that each kernel chooses among at most MOST of them: a yardstick that is a little
# too slow where the best one is left out.
import sys

import torch
import torch.nn.functional as F
from triton.runtime import autotuner

MOST = 6


def tune_among_few():
    original = autotuner.Autotuner.__init__

    def init(self, fn, arg_names, configs, *rest, **named):
        n = len(configs)
        if n > MOST:
            configs = [configs[i * (n - 1) // (MOST - 1)] for i in range(MOST)]
        original(self, fn, arg_names, configs, *rest, **named)

    autotuner.Autotuner.__init__ = init


tune_among_few()  # before the kernels are declared
from fla.ops.gla import chunk_gla  # noqa: E402


def median_ms(work):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    for i in range(25):
        torch.cuda.synchronize()
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if i >= 5:
            times.append(begin.elapsed_time(end))
    return sorted(times)[10]


def measure(batch, length, heads, key, value):
    torch.manual_seed(1)
    make = lambda width: torch.randn(batch, length, heads, width, device="cuda", dtype=torch.bfloat16)
    q, k, v = (make(width).requires_grad_() for width in (key, key, value))
    g = (F.logsigmoid(torch.randn(batch, length, heads, key, device="cuda")) / 16).requires_grad_()
    grad_o = make(value)
    with torch.no_grad():
        forward = median_ms(lambda: chunk_gla(q, k, v, g))
    o, _ = chunk_gla(q, k, v, g)
    backward = median_ms(lambda: torch.autograd.grad(o, (q, k, v, g), grad_o, retain_graph=True))
    print(f"chunk_gla batch {batch}, length {length}, heads {heads}, key {key}, value {value}: "
          f"forward {forward:.3f} ms, backward {backward:.3f} ms")


def main():
    if not torch.cuda.is_available():
        sys.exit("gla_yardstick: no CUDA device")
    import fla
    import triton
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}, "
          f"fla {getattr(fla, '__version__', '?')}; at most {MOST} configurations a kernel, evenly spaced", flush=True)
    measure(8, 2048, 4, 128, 256)


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cuda_check.sh BUILD_FOLDER [cmake option...]: builds the Python package with its CUDA twin on a machine with a GPU, nvcc and
# PyTorch, and runs the tests that need them: quantize, dequantize and gemm where tensors lie; layers, streams, torch.compile, 50
# steps of Qwen3 (with transformers), of GLA and of Gated DeltaNet (with flash-linear-attention); the pretraining example. JOBS=16
# builds on so many cores.
set -euo pipefail
source=$(cd "$(dirname "$0")/../../.." && pwd)
build=$1
shift
cmake -S "$source" -B "$build" -DNVFP4_PYTHON=ON -DNVFP4_TESTS=OFF -DNVFP4_TOOLS=OFF -DNVFP4_CUDA=AUTO "$@" >"$build.log" 2>&1 ||
  { tail -20 "$build.log"; exit 1; }
cmake --build "$build" -j"${JOBS:-$(nproc)}" --target nvfp4_python >>"$build.log" 2>&1 || { grep -m5 -A5 error "$build.log"; exit 1; }
cd "$source"
export PYTHONPATH="$build/python${PYTHONPATH:+:$PYTHONPATH}" OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE=1
python3 -c 'import nvfp4._nvfp4_cuda' # built, and loads
python3 -m pytest -q -p no:cacheprovider --durations=8 -rs tests/python/with_torch/test_cuda.py tests/python/with_torch/test_cuda_functions.py tests/python/with_torch/test_example.py

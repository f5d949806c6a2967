// SPDX-License-Identifier: Apache-2.0
// The module nvfp4._nvfp4_cuda: quantization and products of tensors on a GPU, and linear layers with the
// device "cuda". The package loads it when a tensor on a GPU first asks.
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/models/session.hpp"
#include "tools/python/src/bind.hpp"

namespace nvfp4::python {
namespace {

/// The GPU that this thread's calls run on, by PyTorch's number.
void use_device(int index) { cuda::check(cudaSetDevice(index), "cudaSetDevice"); }

void fill(PyObject *module) {
  cuda::register_cuda_device();
  Module m(module);
  bind_device(m);
  bind_linear(m);
  m.def<use_device>("use_device", "index");
}

} // namespace
} // namespace nvfp4::python

extern "C" __attribute__((visibility("default"))) PyObject *PyInit__nvfp4_cuda() {
  return nvfp4::python::init_module<nvfp4::python::fill>("_nvfp4_cuda");
}

// SPDX-License-Identifier: Apache-2.0
// The module nvfp4._nvfp4_cuda: linear layers with the device "cuda". nvfp4.torch loads it when a tensor on a
// GPU first asks.
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/models/session.hpp"
#include "tools/python/src/bind.hpp"

namespace nvfp4::python {
namespace {

/// The GPU that this thread's calls run on, by PyTorch's number.
void use_device(int index) { cuda::check(cudaSetDevice(index), "cudaSetDevice"); }

int fill(PyObject *module) {
  try {
    cuda::register_cuda_device();
    Module m(module);
    bind_linear(m);
    m.def<use_device>("use_device", "index");
    return 0;
  } catch (...) {
    set_error();
    return -1;
  }
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void *>(&fill)}, {0, nullptr}};
PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_nvfp4_cuda", nullptr, 0, nullptr, slots, nullptr, nullptr, nullptr};

} // namespace
} // namespace nvfp4::python

extern "C" __attribute__((visibility("default"))) PyObject *PyInit__nvfp4_cuda() {
  return PyModuleDef_Init(&nvfp4::python::definition);
}

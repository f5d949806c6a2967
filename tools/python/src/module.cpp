// SPDX-License-Identifier: Apache-2.0
// The module nvfp4._nvfp4: one function for each area binds that area's functions.
#include "nvfp4/reference_models/train/session.hpp"
#include "nvfp4/version.hpp"
#include "tools/environment.hpp"
#include "tools/python/src/bind.hpp"

namespace nvfp4::python {
namespace {

int fill(PyObject *module) {
  try {
    models::register_device("cpu",
                            [](int threads) { return models::make_cpu_session(threads, tool::asked_isa()); });
    if (PyModule_AddStringConstant(module, "version", NVFP4_VERSION_STRING) != 0) return -1;
    Module m(module);
    for (void (*const bind)(Module &) : binders) bind(m);
    return 0;
  } catch (...) {
    set_error();
    return -1;
  }
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void *>(&fill)}, {0, nullptr}};
PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_nvfp4", nullptr, 0, nullptr, slots, nullptr, nullptr, nullptr};

} // namespace
} // namespace nvfp4::python

extern "C" __attribute__((visibility("default"))) PyObject *PyInit__nvfp4() {
  return PyModuleDef_Init(&nvfp4::python::definition);
}

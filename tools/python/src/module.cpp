// SPDX-License-Identifier: Apache-2.0
// The module nvfp4._nvfp4: one function for each area binds that area's functions.
#include "nvfp4/reference_models/train/session.hpp"
#include "nvfp4/version.hpp"
#include "tools/environment.hpp"
#include "tools/python/src/bind.hpp"

namespace nvfp4::python {
namespace {

void fill(PyObject *module) {
  models::register_device("cpu",
                          [](int threads) { return models::make_cpu_session(threads, tool::asked_isa()); });
  if (PyModule_AddStringConstant(module, "version", NVFP4_VERSION_STRING) != 0) throw ErrorSet{};
  Module m(module);
  for (void (*const bind)(Module &) : binders) bind(m);
}

} // namespace
} // namespace nvfp4::python

extern "C" __attribute__((visibility("default"))) PyObject *PyInit__nvfp4() {
  return nvfp4::python::init_module<nvfp4::python::fill>("_nvfp4");
}

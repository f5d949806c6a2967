// SPDX-License-Identifier: Apache-2.0
// Values, errors and progress between Python and C++.
#include "tools/python/src/python.hpp"

#include <cmath>
#include <cstdarg>
#include <filesystem>
#include <limits>
#include <new>

namespace nvfp4::python {
namespace {

/// The value, unless it is `failed` and Python's error is set.
template <class T> T checked(T value, T failed) {
  if (value == failed && PyErr_Occurred() != nullptr) throw ErrorSet{};
  return value;
}
PyObject *checked(PyObject *object) {
  if (object == nullptr) throw ErrorSet{};
  return object;
}

} // namespace

bool From<bool>::get(PyObject *o) { return checked(PyObject_IsTrue(o), -1) != 0; }
int64_t From<int64_t>::get(PyObject *o) { return checked<long long>(PyLong_AsLongLong(o), -1); }
int From<int>::get(PyObject *o) {
  const int64_t v = From<int64_t>::get(o);
  if (!std::in_range<int>(v)) throw Error("expected a whole number of 32 bits, got " + std::to_string(v));
  return int(v);
}
uint64_t From<uint64_t>::get(PyObject *o) {
  return checked<unsigned long long>(PyLong_AsUnsignedLongLong(o),
                                     std::numeric_limits<unsigned long long>::max());
}
double From<double>::get(PyObject *o) { return checked(PyFloat_AsDouble(o), -1.0); }
float From<float>::get(PyObject *o) {
  const double v = From<double>::get(o);
  const float narrow = float(v);
  if (std::isinf(narrow) && !std::isinf(v)) throw Error("the number is beyond FP32");
  return narrow;
}
std::string From<std::string>::get(PyObject *o) {
  if (!PyUnicode_Check(o)) throw TypeError("expected a str");
  Py_ssize_t size = 0;
  const char *const text = PyUnicode_AsUTF8AndSize(o, &size);
  if (text == nullptr) throw ErrorSet{};
  return {text, size_t(size)};
}
Address From<Address>::get(PyObject *o) {
  if (o == Py_None) return {};
  return {reinterpret_cast<std::byte *>(From<uint64_t>::get(o))};
}

PyObject *to_python(bool v) { return checked(PyBool_FromLong(v ? 1 : 0)); }
PyObject *to_python(int64_t v) { return checked(PyLong_FromLongLong(v)); }
PyObject *to_python(int v) { return checked(PyLong_FromLong(v)); }
PyObject *to_python(uint64_t v) { return checked(PyLong_FromUnsignedLongLong(v)); }
PyObject *to_python(double v) { return checked(PyFloat_FromDouble(v)); }
PyObject *to_python(std::string_view text) {
  return checked(PyUnicode_DecodeUTF8(text.data(), Py_ssize_t(text.size()), "replace"));
}
PyObject *to_python(const std::string &text) { return to_python(std::string_view(text)); }
PyObject *to_python(const Memory &m) {
  return make_tuple({to_python(uint64_t(reinterpret_cast<uintptr_t>(m.data))), to_python(uint64_t(m.bytes)),
                     to_python(m.owner)});
}
PyObject *make_tuple(std::initializer_list<PyObject *> items) {
  PyObject *const tuple = checked(PyTuple_New(Py_ssize_t(items.size())));
  Py_ssize_t i = 0;
  for (PyObject *const item : items) PyTuple_SetItem(tuple, i++, item);
  return tuple;
}

Callback::Callback(PyObject *callable)
    : callable_(callable, [](PyObject *o) {
        const PyGILState_STATE gil = PyGILState_Ensure();
        Py_DecRef(o);
        PyGILState_Release(gil);
      }) {
  Py_IncRef(callable);
}

void Callback::call(const char *format, ...) const {
  const PyGILState_STATE gil = PyGILState_Ensure();
  bool failed = PyErr_CheckSignals() != 0; // acts in Python's main thread only
  if (!failed && callable_.get() != Py_None) {
    va_list values;
    va_start(values, format);
    PyObject *const arguments = Py_VaBuildValue((std::string("(") + format + ")").c_str(), values);
    va_end(values);
    PyObject *const result = arguments == nullptr ? nullptr : PyObject_CallObject(callable_.get(), arguments);
    failed = result == nullptr;
    Py_XDECREF(arguments);
    Py_XDECREF(result);
  }
  PyGILState_Release(gil);
  if (failed) throw ErrorSet{};
}

void Progress::operator()(double fraction) const {
  const auto now = std::chrono::steady_clock::now();
  if (fraction < 1.0 && now - *last_ < std::chrono::milliseconds(100)) return;
  *last_ = now;
  call("d", fraction);
}

void set_error() noexcept {
  try {
    throw;
  } catch (const ErrorSet &) {
  } catch (const TypeError &e) {
    PyErr_SetString(PyExc_TypeError, e.what());
  } catch (const Error &e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const std::bad_alloc &) {
    PyErr_NoMemory();
  } catch (const std::filesystem::filesystem_error &e) {
    PyErr_SetString(PyExc_OSError, e.what());
  } catch (const std::exception &e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

void name_error(PyObject *names, size_t i) noexcept {
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyObject *const words = PyUnicode_Split(names, nullptr, -1);
  PyObject *const word = words == nullptr ? nullptr : PyList_GetItem(words, Py_ssize_t(i));
  if (word != nullptr && value != nullptr) {
    const bool range = PyErr_GivenExceptionMatches(type, PyExc_OverflowError) != 0;
    PyErr_Format(range ? PyExc_ValueError : type, range ? "%U: the number is out of range: %S" : "%U: %S",
                 word, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
  } else {
    PyErr_Restore(type, value, trace);
  }
  Py_XDECREF(words);
}

void Module::add(const char *name, const char *arguments, size_t count, FastCall function) {
  // Python keeps the pointer for the life of the process
  auto *const method = new PyMethodDef{
      name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL, nullptr};
  PyObject *const names = checked(PyUnicode_FromString(arguments));
  PyObject *const words = checked(PyUnicode_Split(names, nullptr, -1));
  const bool fits = PyList_Size(words) == Py_ssize_t(count);
  Py_DecRef(words);
  if (!fits) throw std::logic_error(std::string(name) + ": names of arguments do not fit the function");
  PyObject *const object = checked(PyCFunction_NewEx(method, names, nullptr));
  Py_DecRef(names);
  const int failed = PyModule_AddObjectRef(module_, name, object);
  Py_DecRef(object);
  if (failed != 0) throw ErrorSet{};
}

} // namespace nvfp4::python

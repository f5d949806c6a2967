// SPDX-License-Identifier: Apache-2.0
// C++ functions as functions of a Python module, over Python's limited API alone, so that one built module
// serves CPython 3.10 and every later one (nanobind's stable ABI begins with 3.12). Arguments arrive by
// position; names, defaults and arrays are the business of the Python side, which hands memory over as
// addresses that it keeps alive.
#pragma once
#include "nvfp4/emulator/config.hpp"

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030A0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <typeinfo>
#include <utility>
#include <vector>

namespace nvfp4::python {

/// Python's error indicator is set: unwind to the interpreter.
struct ErrorSet {};
/// An argument of a wrong type: becomes TypeError, as Error becomes ValueError.
struct TypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Lets other Python threads run while it lives.
class WithoutGil {
public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil &) = delete;
  WithoutGil &operator=(const WithoutGil &) = delete;

private:
  PyThreadState *state_;
};

/// Memory of a Python object, which that object keeps.
struct Address {
  std::byte *data = nullptr;

  template <class T> [[nodiscard]] std::span<const T> view(int64_t n) const {
    return {reinterpret_cast<const T *>(data), size_t(n)};
  }
};

/// Memory of ours that Python may read and write as long as it holds `owner`: (address, bytes, owner).
struct Memory {
  std::shared_ptr<void> owner;
  const void *data;
  size_t bytes;
};
/// A vector that Python takes over.
template <class T> [[nodiscard]] Memory give(std::vector<T> values) {
  auto owner = std::make_shared<std::vector<T>>(std::move(values));
  return {owner, owner->data(), owner->size() * sizeof(T)};
}

/// A callable, or None. A call takes the interpreter's lock and looks for Ctrl-C; an exception of either
/// leaves as ErrorSet, which ends the work. From the thread that Python called only.
class Callback {
public:
  explicit Callback(PyObject *callable);

protected:
  void call(const char *format, ...) const;

private:
  std::shared_ptr<PyObject> callable_;
};
/// Gets the fraction done, at most ten times a second and at the end.
class Progress : public Callback {
public:
  explicit Progress(PyObject *callable) : Callback(callable) {}
  void operator()(double fraction) const;

private:
  std::shared_ptr<std::chrono::steady_clock::time_point> last_ =
      std::make_shared<std::chrono::steady_clock::time_point>();
};
/// Gets step, steps, loss and tokens per second after each step.
class StepCall : public Callback {
public:
  explicit StepCall(PyObject *callable) : Callback(callable) {}
  void operator()(int64_t step, int64_t steps, double loss, double tokens_per_second) const {
    call("LLdd", static_cast<long long>(step), static_cast<long long>(steps), loss, tokens_per_second);
  }
};

/// Gets a stage's name and the fraction of it that is done.
class LabCall : public Callback {
public:
  explicit LabCall(PyObject *callable) : Callback(callable) {}
  void operator()(const std::string &stage, double fraction) const { call("sd", stage.c_str(), fraction); }
};

// ---- from Python ----
template <class T> struct From; // From<T>::get(PyObject *) -> T

template <> struct From<bool> { static bool get(PyObject *o); };
template <> struct From<int64_t> { static int64_t get(PyObject *o); };
template <> struct From<int> { static int get(PyObject *o); };
template <> struct From<uint64_t> { static uint64_t get(PyObject *o); };
template <> struct From<double> { static double get(PyObject *o); };
/// Rounded to nearest even; an overflow is an error.
template <> struct From<float> { static float get(PyObject *o); };
template <> struct From<std::string> { static std::string get(PyObject *o); };
template <> struct From<Address> { static Address get(PyObject *o); };
template <std::derived_from<Callback> T> struct From<T> {
  static T get(PyObject *o) { return T(o); }
};
template <class T> struct From<std::optional<T>> {
  static std::optional<T> get(PyObject *o) {
    if (o == Py_None) return std::nullopt;
    return From<T>::get(o);
  }
};
template <class T> struct From<std::vector<T>> {
  static std::vector<T> get(PyObject *o) {
    const Py_ssize_t n = PySequence_Size(o);
    if (n < 0) throw ErrorSet{};
    std::vector<T> list;
    for (Py_ssize_t i = 0; i < n; ++i) {
      PyObject *const item = PySequence_GetItem(o, i);
      if (item == nullptr) throw ErrorSet{};
      const std::unique_ptr<PyObject, void (*)(PyObject *)> held(item, [](PyObject *p) { Py_DecRef(p); });
      list.push_back(From<T>::get(item));
    }
    return list;
  }
};
template <class T> struct From<std::map<std::string, T>> {
  static std::map<std::string, T> get(PyObject *o) {
    if (PyDict_Size(o) < 0) throw ErrorSet{};
    std::map<std::string, T> items;
    PyObject *key = nullptr, *value = nullptr;
    for (Py_ssize_t at = 0; PyDict_Next(o, &at, &key, &value) != 0;)
      items.emplace(From<std::string>::get(key), From<T>::get(value));
    return items;
  }
};
/// From a tuple of that many items.
template <class... T> struct From<std::tuple<T...>> {
  static std::tuple<T...> get(PyObject *o) { return items(o, std::index_sequence_for<T...>{}); }

private:
  template <size_t... i> static std::tuple<T...> items(PyObject *o, std::index_sequence<i...>) {
    if (PyTuple_Size(o) != Py_ssize_t(sizeof...(T))) {
      PyErr_Clear();
      throw TypeError("expected a tuple of " + std::to_string(sizeof...(T)));
    }
    return {From<T>::get(PyTuple_GetItem(o, Py_ssize_t(i)))...};
  }
};
/// An object that Python holds for us: made by returning a shared_ptr, an opaque capsule in between. None is
/// nullptr.
template <class T> struct From<std::shared_ptr<T>> {
  static std::shared_ptr<T> get(PyObject *o) {
    if (o == Py_None) return nullptr;
    void *const p = PyCapsule_GetPointer(o, typeid(T).name());
    if (p == nullptr) throw ErrorSet{};
    return *static_cast<std::shared_ptr<T> *>(p);
  }
};

// ---- to Python: a new reference, or ErrorSet ----
PyObject *to_python(bool v);
PyObject *to_python(int64_t v);
PyObject *to_python(int v);
PyObject *to_python(uint64_t v);
PyObject *to_python(double v);
PyObject *to_python(const std::string &text);
PyObject *to_python(std::string_view text);
PyObject *to_python(const Memory &memory);
/// A tuple of `items`, whose references it takes.
PyObject *make_tuple(std::initializer_list<PyObject *> items);

// declared before they call each other
template <class T> PyObject *to_python(const std::shared_ptr<T> &object);
template <class T> PyObject *to_python(const std::optional<T> &value);
template <class... T> PyObject *to_python(const std::tuple<T...> &values);
template <class T> PyObject *to_python(const std::vector<T> &values);
template <class T> PyObject *to_python(const std::map<std::string, T> &values);

template <class T> PyObject *to_python(const std::shared_ptr<T> &object) {
  if (object == nullptr) {
    Py_IncRef(Py_None);
    return Py_None;
  }
  auto held = std::make_unique<std::shared_ptr<T>>(object);
  PyObject *const capsule = PyCapsule_New(held.get(), typeid(T).name(), [](PyObject *c) {
    delete static_cast<std::shared_ptr<T> *>(PyCapsule_GetPointer(c, PyCapsule_GetName(c)));
  });
  if (capsule == nullptr) throw ErrorSet{};
  (void)held.release();
  return capsule;
}
template <class T> PyObject *to_python(const std::optional<T> &value) {
  if (value) return to_python(*value);
  Py_IncRef(Py_None);
  return Py_None;
}
template <class... T> PyObject *to_python(const std::tuple<T...> &values) {
  return std::apply([](const auto &...v) { return make_tuple({to_python(v)...}); }, values);
}
template <class T> PyObject *to_python(const std::vector<T> &values) {
  PyObject *const list = PyList_New(Py_ssize_t(values.size()));
  if (list == nullptr) throw ErrorSet{};
  for (size_t i = 0; i < values.size(); ++i) PyList_SetItem(list, Py_ssize_t(i), to_python(values[i]));
  return list;
}
template <class T> PyObject *to_python(const std::map<std::string, T> &values) {
  PyObject *const dict = PyDict_New();
  if (dict == nullptr) throw ErrorSet{};
  for (const auto &[key, value] : values) {
    PyObject *const item = to_python(value);
    const int failed = PyDict_SetItemString(dict, key.c_str(), item);
    Py_DecRef(item);
    if (failed != 0) throw ErrorSet{};
  }
  return dict;
}

// ---- functions ----
/// Sets Python's error from the exception in flight. Error, filesystem and memory errors, TypeError and
/// ErrorSet have their Python kinds; anything else is a RuntimeError.
void set_error() noexcept;
/// Puts the name of argument `i` before the message of Python's error, which becomes ValueError where a
/// number is out of range. `names`: a str, words in the order of the arguments.
void name_error(PyObject *names, size_t i) noexcept;

namespace detail {
template <auto F> struct Call;
template <class R, class... A, R (*F)(A...)> struct Call<F> {
  static constexpr size_t count = sizeof...(A);

  static PyObject *call(PyObject *names, PyObject *const *args, Py_ssize_t n) noexcept {
    try {
      if (n != Py_ssize_t(count))
        throw TypeError("expected " + std::to_string(count) + " arguments, got " + std::to_string(n));
      return call(names, args, std::index_sequence_for<A...>{});
    } catch (...) {
      set_error();
      return nullptr;
    }
  }

private:
  /// Argument i; `at` says how far it came.
  template <class T> static T argument(PyObject *const *args, size_t i, size_t &at) {
    at = i;
    return From<T>::get(args[i]);
  }
  template <size_t... i>
  static PyObject *call(PyObject *names, [[maybe_unused]] PyObject *const *args, std::index_sequence<i...>) {
    using Values = std::tuple<std::decay_t<A>...>;
    std::optional<Values> values;
    size_t at = 0;
    try {
      values.emplace(Values{argument<std::decay_t<A>>(args, i, at)...});
    } catch (...) {
      set_error();
      name_error(names, at);
      return nullptr;
    }
    if constexpr (std::is_void_v<R>) {
      {
        const WithoutGil released;
        std::apply(F, std::move(*values));
      }
      Py_IncRef(Py_None);
      return Py_None;
    } else {
      return to_python([&] {
        const WithoutGil released;
        return std::apply(F, std::move(*values));
      }());
    }
  }
};
} // namespace detail

/// A module while it is filled.
class Module {
public:
  explicit Module(PyObject *module) : module_(module) {}
  /// Adds F, a function on the types above, by value or const reference. It runs without the interpreter's
  /// lock. `arguments`: their names as a user knows them, separated by spaces, for messages.
  template <auto F> void def(const char *name, const char *arguments = "") {
    add(name, arguments, detail::Call<F>::count, &detail::Call<F>::call);
  }

private:
  using FastCall = PyObject *(*)(PyObject *, PyObject *const *, Py_ssize_t);
  void add(const char *name, const char *arguments, size_t count, FastCall function);
  PyObject *module_;
};

/// What PyInit_NAME returns: a module that Fill, a function of the new module, fills when it is imported.
template <void (*Fill)(PyObject *)> PyObject *init_module(const char *name) {
  constexpr auto exec = +[](PyObject *module) noexcept {
    try {
      Fill(module);
      return 0;
    } catch (...) {
      set_error();
      return -1;
    }
  };
  static PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void *>(exec)}, {0, nullptr}};
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, name, nullptr, 0, nullptr, slots, nullptr, nullptr, nullptr};
  return PyModuleDef_Init(&definition);
}

} // namespace nvfp4::python

// SPDX-License-Identifier: Apache-2.0
#include "nvfp4/gpu/check/activity.hpp"

#include "nvfp4/gpu/device/device.hpp"

#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>

#if __has_include(<cupti.h>)
#include <cupti.h>
#endif

namespace nvfp4::crosscheck {

int64_t Activity::kernels() const {
  return std::count_if(spans.begin(), spans.end(), [](const Span &s) { return s.kernel; });
}

double Activity::kernel_seconds() const {
  double sum = 0;
  for (const Span &s : spans) sum += s.kernel ? double(s.end - s.start) * 1e-9 : 0.0;
  return sum;
}

double Activity::busy(const std::function<bool(std::string_view)> &counts) const {
  std::vector<std::pair<uint64_t, uint64_t>> times;
  for (const Span &s : spans)
    if (counts(s.operation)) times.emplace_back(s.start, s.end);
  std::sort(times.begin(), times.end());
  double sum = 0;
  uint64_t until = 0;
  for (const auto &[start, end] : times) {
    if (end > until) sum += double(end - std::max(start, until)) * 1e-9;
    until = std::max(until, end);
  }
  return sum;
}

#if defined(CUPTI_API_VERSION) && CUPTI_API_VERSION >= 19 // CUDA 12.0
namespace {

constexpr CUpti_ActivityKind kKinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                                         CUPTI_ACTIVITY_KIND_MEMSET, CUPTI_ACTIVITY_KIND_RUNTIME};

struct Seen {
  uint64_t start, end;
  bool kernel;
  uint32_t call;
  std::string_view name;
};
std::vector<Seen> seen;
std::map<std::string, std::string, std::less<>> names;         // of kernels, as linked and as read
std::map<uint32_t, uint64_t> calls;                            // when the host made it, by number
std::vector<std::pair<uint64_t, std::string_view>> operations; // when the host had given it

template <class F> F *function(const char *name) {
  static void *const library = [] {
    void *found = nullptr;
    for (const char *file :
         {"libcupti.so.13", "libcupti.so.12", "libcupti.so", "/usr/local/cuda/extras/CUPTI/lib64/libcupti.so",
          "/usr/local/cuda/lib64/libcupti.so"})
      if (found == nullptr) found = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    return found;
  }();
  return library == nullptr ? nullptr : reinterpret_cast<F *>(dlsym(library, name));
}

void CUPTIAPI give_buffer(uint8_t **buffer, size_t *size, size_t *records) {
  constexpr size_t kBytes = size_t{1} << 22;
  *buffer = static_cast<uint8_t *>(std::aligned_alloc(8, kBytes));
  *size = kBytes;
  *records = 0; // as many as fit
}

template <class Record> void note(const CUpti_Activity *record, std::string_view name = {}) {
  const auto *const r = reinterpret_cast<const Record *>(record);
  seen.push_back({r->start, r->end, !name.empty(), r->correlationId, name});
}

/// A kernel's name with its template's arguments, without namespaces, return type and arguments.
std::string readable(const char *linked) {
  int status = 0;
  char *const whole = abi::__cxa_demangle(linked, nullptr, nullptr, &status);
  std::string name = status == 0 ? whole : linked;
  std::free(whole);
  for (const std::string_view part : {"(anonymous namespace)::", "nvfp4::", "cuda::", "void "})
    for (size_t at = name.find(part); at != std::string::npos; at = name.find(part, at)) name.erase(at, part.size());
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    depth += name[i] == '<' ? 1 : name[i] == '>' ? -1 : 0;
    if (name[i] == '(' && depth == 0) name.resize(i);
  }
  return name;
}

std::string_view name_of(const char *linked) {
  if (linked == nullptr) return "a kernel without a name";
  auto known = names.find(linked);
  if (known == names.end()) known = names.emplace(linked, readable(linked)).first;
  return known->second;
}

void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t *buffer, size_t, size_t valid) {
  const auto next = function<decltype(cuptiActivityGetNextRecord)>("cuptiActivityGetNextRecord");
  CUpti_Activity *record = nullptr;
  while (next(buffer, valid, &record) == CUPTI_SUCCESS) {
    switch (record->kind) {
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
      note<CUpti_ActivityKernel9>(record, name_of(reinterpret_cast<const CUpti_ActivityKernel9 *>(record)->name));
      break;
    }
    case CUPTI_ACTIVITY_KIND_MEMCPY: note<CUpti_ActivityMemcpy5>(record); break;
    case CUPTI_ACTIVITY_KIND_MEMSET: note<CUpti_ActivityMemset4>(record); break;
    case CUPTI_ACTIVITY_KIND_RUNTIME: {
      const auto *const r = reinterpret_cast<const CUpti_ActivityAPI *>(record);
      calls[r->correlationId] = r->start;
      break;
    }
    default: break;
    }
  }
  std::free(buffer);
}

std::string_view operation_of(uint32_t call) {
  const auto made = calls.find(call);
  if (made == calls.end()) return {};
  const auto at = std::lower_bound(operations.begin(), operations.end(), made->second,
                                   [](const auto &o, uint64_t time) { return o.first < time; });
  return at == operations.end() ? std::string_view{} : at->second;
}

} // namespace

bool start_activity() {
  const auto callbacks = function<decltype(cuptiActivityRegisterCallbacks)>("cuptiActivityRegisterCallbacks");
  const auto enable = function<decltype(cuptiActivityEnable)>("cuptiActivityEnable");
  if (callbacks == nullptr || enable == nullptr) return false;
  seen.clear();
  calls.clear();
  operations.clear();
  names.clear();
  bool all = callbacks(give_buffer, take_buffer) == CUPTI_SUCCESS;
  for (const CUpti_ActivityKind kind : kKinds) all = all && enable(kind) == CUPTI_SUCCESS;
  return all;
}

void end_operation(const char *name) {
  static const auto now = function<decltype(cuptiGetTimestamp)>("cuptiGetTimestamp");
  uint64_t time = 0;
  if (now != nullptr && now(&time) == CUPTI_SUCCESS) operations.emplace_back(time, name);
}

Activity stop_activity() {
  cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  const auto flush = function<decltype(cuptiActivityFlushAll)>("cuptiActivityFlushAll");
  const auto disable = function<decltype(cuptiActivityDisable)>("cuptiActivityDisable");
  if (flush == nullptr || disable == nullptr) return {};
  Activity out;
  out.known = flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED) == CUPTI_SUCCESS && !seen.empty();
  for (const CUpti_ActivityKind kind : kKinds) static_cast<void>(disable(kind));
  for (const Seen &s : seen) out.spans.push_back({s.start, s.end, s.kernel, operation_of(s.call), s.name});
  return out;
}

#else
bool start_activity() { return false; }
void end_operation(const char *) {}
Activity stop_activity() { return {}; }
#endif

} // namespace nvfp4::crosscheck

// The Python module: what torch_sim/__init__.py builds on.
#include <torch/extension.h>

#include "memory.h"
#include "pinned.h"
#include "random.h"

namespace sim {

void register_hooks();
void take_cpu_kernels();

namespace {

Policy policy_named(const std::string& name) {
  if (name == "eager") return Policy::Eager;
  if (name == "late-copies") return Policy::LateCopies;
  if (name == "late-compute") return Policy::LateCompute;
  if (name == "late") return Policy::Late;
  if (name == "random") return Policy::Random;
  throw py::value_error("sim: no policy '" + name + "' (eager, late-copies, late-compute, late, random)");
}

std::map<std::string, size_t> pinned_counts() {
  const auto& pinned = pinned_memory();
  return {{"bytes", pinned.bytes}, {"peak", pinned.peak}, {"regions", pinned.count()}};
}

}  // namespace
}  // namespace sim

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  using namespace sim;
  c10::SetAllocator(kSim, &allocator(), 1);
  at::setHostAllocator(kSim, &host_allocator(), 1);
  register_hooks();
  take_cpu_kernels();
  auto without_gil = py::call_guard<py::gil_scoped_release>();
  m.def("set_policy", [](const std::string& name, uint64_t seed) { engine().set_policy(policy_named(name), seed); }, without_gil);
  m.def("set_detecting", [](bool on) { engine().set_detecting(on); });
  m.def("set_fatal", [](bool on) { engine().set_fatal(on); });
  m.def("take_violations", [] { return engine().take_violations(); }, without_gil);
  m.def("fail", [](const std::string& text) { engine().fail(text); });
  m.def("host_waits", [] { return engine().host_waits(); });
  m.def("synchronize", [] { engine().synchronize_all(); }, without_gil);
  m.def("device_count", &device_count);
  m.def("is_touched", &is_touched);
  m.def("in_bad_fork", &in_bad_fork);
  m.def("total_memory", &total_memory);
  m.def("context", [](int device) { return device_memory(device).context(); });
  m.def("limit_memory", [](int device, size_t bytes) { device_memory(device).limit = bytes; });
  m.def("host_register", [](uintptr_t at, size_t size) { return int(pinned_memory().add(at, size)); });
  m.def("host_unregister", [](uintptr_t at) { return int(pinned_memory().remove(at)); });
  m.def("limit_pinned", [](size_t bytes) { pinned_memory().limit = bytes; });
  m.def("pinned", &pinned_counts);
  m.def("default_generator", [](int device) { return default_generator(device); });
}

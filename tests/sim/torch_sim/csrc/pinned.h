// Host memory that a device copies from and to while the host goes on.
#pragma once

#include <map>

#include <ATen/core/CachingHostAllocator.h>

#include "engine.h"

namespace sim {

// Numbers that the CUDA runtime has for these.
enum PinError { kPinned = 0, kInvalid = 1, kNoMemory = 2, kAlreadyPinned = 712, kNotPinned = 713 };

class PinnedMemory {
 public:
  PinError add(uintptr_t at, size_t size);
  PinError remove(uintptr_t at);
  bool has(const void* p);
  bool begin_copy(const void* p);              // a copy from or to it was issued: false if it is not pinned
  bool end_copy(const void* p, size_t bytes);  // the copy runs: false if the memory is pinned no more
  bool is_in_use(uintptr_t at);

  size_t bytes = 0, peak = 0, limit = SIZE_MAX;
  size_t count() const { return regions_.size(); }

 private:
  struct Region {
    size_t size;
    int copies = 0;  // issued, and not run
  };
  std::map<uintptr_t, Region> regions_;
  std::map<uintptr_t, Region>::iterator find(const void* p);
};
PinnedMemory& pinned_memory();

// What torch.empty(pin_memory=True) allocates with: powers of two, as PyTorch's own.
class HostAllocator final : public at::HostAllocator {
 public:
  at::DataPtr allocate(size_t bytes) override;
  at::DeleterFnPtr raw_deleter() const override;
  void copy_data(void* dest, const void* src, size_t count) const override { default_copy_data(dest, src, count); }
  bool record_event(void*, void*, c10::Stream) override { return true; }
  void empty_cache() override {}
  at::HostStats get_stats() override { return {}; }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
};
HostAllocator& host_allocator();

}  // namespace sim

#include "pinned.h"

#include <sys/mman.h>

#include <c10/util/Exception.h>

#include "device.h"
#include "memory.h"

namespace sim {

PinnedMemory& pinned_memory() {
  static auto* one = new PinnedMemory();
  return *one;
}

std::map<uintptr_t, PinnedMemory::Region>::iterator PinnedMemory::find(const void* p) {
  auto next = regions_.upper_bound(address(p));
  if (next == regions_.begin()) return regions_.end();
  auto at = std::prev(next);
  return address(p) < at->first + at->second.size ? at : regions_.end();
}

PinError PinnedMemory::add(uintptr_t at, size_t size) {
  Locked lock;
  touch(current_device());  // the registration goes through a context, the current device's
  if (!size) return kInvalid;
  auto next = regions_.lower_bound(at);
  const bool meets_next = next != regions_.end() && next->first < at + size;
  const bool meets_before = next != regions_.begin() && std::prev(next)->first + std::prev(next)->second.size > at;
  if (meets_next || meets_before) return kAlreadyPinned;
  if (bytes + size > limit) return kNoMemory;
  regions_[at] = {size};
  bytes += size;
  peak = std::max(peak, bytes);
  return kPinned;
}

PinError PinnedMemory::remove(uintptr_t at) {
  Locked lock;
  auto region = regions_.find(at);
  if (region == regions_.end()) return kNotPinned;
  if (region->second.copies) {
    engine().add_violation("use after free: host memory is let go while " + std::to_string(region->second.copies) +
                           " copies of it are under way");
  }
  bytes -= region->second.size;
  engine().forget(at, at + region->second.size);
  regions_.erase(region);
  return kPinned;
}

bool PinnedMemory::has(const void* p) {
  Locked lock;
  return find(p) != regions_.end();
}

bool PinnedMemory::is_in_use(uintptr_t at) {
  Locked lock;
  auto region = regions_.find(at);
  return region != regions_.end() && region->second.copies;
}

bool PinnedMemory::begin_copy(const void* p) {
  auto region = find(p);
  if (region == regions_.end()) return false;
  ++region->second.copies;
  return true;
}

bool PinnedMemory::end_copy(const void* p, size_t size) {
  auto region = find(p);
  if (region == regions_.end() || address(p) + size > region->first + region->second.size) {
    engine().add_violation("use after free: a copy runs, and the host memory that it goes from or to is gone");
    return false;
  }
  --region->second.copies;
  return true;
}

HostAllocator& host_allocator() {
  static auto* one = new HostAllocator();
  return *one;
}

namespace {

std::map<uintptr_t, size_t>& host_blocks() {
  static auto* one = new std::map<uintptr_t, size_t>();
  return *one;
}

// PyTorch's own keeps memory that copies still use; this one waits for them.
void free_host(void* p) {
  if (!p) return;
  Locked lock;
  if (pinned_memory().is_in_use(address(p))) engine().drain_all();  // a deleter must not throw
  pinned_memory().remove(address(p));
  auto block = host_blocks().find(address(p));
  munmap(p, block->second);
  host_blocks().erase(block);
}

}  // namespace

at::DataPtr HostAllocator::allocate(size_t bytes) {
  if (!bytes) return {nullptr, nullptr, raw_deleter(), at::kCPU};
  size_t size = 4096;
  while (size < bytes) size *= 2;
  Locked lock;
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  TORCH_CHECK(p != MAP_FAILED, "sim: no host memory");
  if (const auto failed = pinned_memory().add(address(p), size)) {
    munmap(p, size);
    TORCH_CHECK_WITH(OutOfMemoryError, false, "sim: host memory cannot be pinned (error ", int(failed), ")");
  }
  host_blocks()[address(p)] = size;
  return {p, p, raw_deleter(), at::kCPU};
}

at::DeleterFnPtr HostAllocator::raw_deleter() const { return &free_host; }

}  // namespace sim

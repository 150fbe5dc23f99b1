// The memory of the simulated devices: unreadable for the host, and cached as CUDA's allocator does.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <vector>

#include <c10/core/CachingDeviceAllocator.h>

#include "device.h"
#include "engine.h"

namespace sim {

inline uintptr_t address(const void* p) { return reinterpret_cast<uintptr_t>(p); }

// The same pages mapped twice: at the addresses that tensors have nobody may read or write; kernels use others.
class Arena {
 public:
  explicit Arena(size_t size);
  bool has(const void* p) const { return p >= front && p < front + size; }
  char* readable(const void* p) const { return back_ + (static_cast<const char*>(p) - front); }
  void release(size_t offset, size_t bytes);  // pages go back to the system

  char* front;
  const size_t size;

 private:
  char* back_;
  int file_;
};

// One device's memory: segments of 2 MiB, of 20 MiB or of their own size; blocks belong to the stream that they
// were asked for on.
class DeviceMemory {
 public:
  explicit DeviceMemory(int device);
  char* allocate(size_t bytes);
  void free(void* p);
  void record_stream(void* p, int stream);
  void empty_cache();
  void reset_peaks();
  bool has(const void* p) const { return arena_ && arena_->has(p); }
  char* readable(const void* p) const { return arena_->readable(p); }
  size_t reserved() const { return static_cast<size_t>(stats.reserved_bytes[0].current); }
  size_t context() const;  // bytes that the driver takes once the device is used

  size_t limit;
  c10::CachingDeviceAllocator::DeviceStats stats;

 private:
  struct Block {
    size_t size, segment;
    int stream;
    bool small, used = false;
    std::set<int> others;                        // streams that record_stream named
    std::vector<std::shared_ptr<Mark>> pending;  // freed, and kept until these are done
    bool is_free() const { return !used && pending.empty(); }
  };
  using Blocks = std::map<size_t, Block>;

  int device_;
  std::unique_ptr<Arena> arena_;
  Blocks blocks_;
  std::map<size_t, size_t> segments_;  // sizes by offset

  Blocks::iterator find(size_t size, bool small, int stream);
  Blocks::iterator grow(size_t size, bool small, int stream);
  void split(Blocks::iterator block, size_t size);
  void join_with_neighbours(Blocks::iterator block);
  void look_at_pending();
  Blocks::iterator block_at(const void* p);
};

DeviceMemory& device_memory(int device);
DeviceMemory* owner_of(const void* p);
char* readable(const void* p);
size_t total_memory();

// What PyTorch allocates tensors with.
class Allocator final : public c10::DeviceAllocator {
 public:
  at::DataPtr allocate(size_t bytes) override;
  at::DeleterFnPtr raw_deleter() const override;
  void copy_data(void* dest, const void* src, size_t count) const override;
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t = {0, 0}) override;
  void recordStream(const at::DataPtr& ptr, c10::Stream stream) override;
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override;
  void resetAccumulatedStats(c10::DeviceIndex device) override;
  void resetPeakStats(c10::DeviceIndex device) override;
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override;
};
Allocator& allocator();

}  // namespace sim

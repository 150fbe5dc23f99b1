#include "memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <sstream>

namespace sim {

namespace {

constexpr size_t kKiB = 1024, kMiB = 1024 * kKiB;
constexpr int kPoison = 0xFF;       // NaN in every floating dtype
constexpr size_t kAddressRoom = 4;  // addresses are plenty, pages are not: room for fragments

size_t rounded(size_t size, size_t to) { return (size + to - 1) / to * to; }

size_t from_environment(const char* name, size_t otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? std::strtoull(value, nullptr, 10) : otherwise;
}

void add(c10::CachingAllocator::StatArray& stats, int64_t amount) {
  amount > 0 ? stats[0].increase(amount) : stats[0].decrease(-amount);
}

}  // namespace

size_t total_memory() {
  static const size_t total = from_environment("SIM_MEMORY", 8ULL << 30);
  return total;
}

Arena::Arena(size_t bytes) : size(bytes) {
  file_ = memfd_create("sim", MFD_CLOEXEC);
  TORCH_CHECK(file_ >= 0 && ftruncate(file_, static_cast<off_t>(bytes)) == 0, "sim: no memory for a device");
  const int flags = MAP_SHARED | MAP_NORESERVE;
  front = static_cast<char*>(mmap(nullptr, bytes, PROT_NONE, flags, file_, 0));
  back_ = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, file_, 0));
  TORCH_CHECK(front != MAP_FAILED && back_ != MAP_FAILED, "sim: a device's memory cannot be mapped");
}

void Arena::release(size_t offset, size_t bytes) {
  fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(bytes));
}

DeviceMemory::DeviceMemory(int device) : limit(total_memory()), device_(device) {}

size_t DeviceMemory::context() const {
  static const size_t bytes = from_environment("SIM_CONTEXT", 0);
  return is_touched(device_) ? bytes : 0;
}

DeviceMemory& device_memory(int device) {
  static auto* all = [] {
    auto* memories = new std::vector<DeviceMemory>();
    for (int n = 0; n < device_count(); ++n) memories->emplace_back(n);
    return memories;
  }();
  return all->at(device);
}

DeviceMemory* owner_of(const void* p) {
  for (int n = 0; n < device_count(); ++n) {
    if (device_memory(n).has(p)) return &device_memory(n);
  }
  return nullptr;
}

char* readable(const void* p) {
  auto* owner = owner_of(p);
  TORCH_INTERNAL_ASSERT(owner, "sim: an address that no device has");
  return owner->readable(p);
}

char* DeviceMemory::allocate(size_t bytes) {
  Locked lock;
  touch(device_);
  engine().check_alive();
  if (!arena_) arena_ = std::make_unique<Arena>(kAddressRoom * total_memory());
  const size_t size = rounded(bytes, 512);
  const bool small = size <= kMiB;
  const int stream = current_stream(device_);
  look_at_pending();
  auto block = find(size, small, stream);
  const bool recycled = block != blocks_.end();
  if (!recycled) block = grow(size, small, stream);
  split(block, size);
  block->second.used = true;
  const size_t whole = block->second.size;
  add(stats.allocated_bytes, static_cast<int64_t>(whole));
  add(stats.allocation, 1);
  char* p = arena_->front + block->first;
  if (recycled) {
    char* at = arena_->readable(p);
    engine().issue(stream, "a new tensor in recycled memory", {{address(p), address(p) + whole, true}},
                   [at, whole] { std::memset(at, kPoison, whole); });
  }
  return p;
}

void DeviceMemory::split(Blocks::iterator block, size_t size) {
  const size_t rest = block->second.size - size;
  if (rest < (block->second.small ? 512 : kMiB + 1)) return;
  Block left = block->second;
  left.size = rest;
  blocks_.emplace(block->first + size, left);
  block->second.size = size;
}

DeviceMemory::Blocks::iterator DeviceMemory::find(size_t size, bool small, int stream) {
  auto best = blocks_.end();
  for (auto at = blocks_.begin(); at != blocks_.end(); ++at) {
    const auto& block = at->second;
    const bool fits = block.is_free() && block.small == small && block.stream == stream && block.size >= size;
    if (fits && (best == blocks_.end() || block.size < best->second.size)) best = at;
  }
  return best;
}

DeviceMemory::Blocks::iterator DeviceMemory::grow(size_t size, bool small, int stream) {
  const size_t wanted = small ? 2 * kMiB : size < 10 * kMiB ? 20 * kMiB : rounded(size, 2 * kMiB);
  const auto fits = [&] { return reserved() + wanted <= std::min(limit, total_memory() - context()); };
  if (!fits()) {
    ++stats.num_alloc_retries;
    empty_cache();
  }
  size_t at = 0;  // the first gap between segments
  for (const auto& [from, bytes] : segments_) {
    if (from - at >= wanted) break;
    at = from + bytes;
  }
  if (!fits() || at + wanted > arena_->size) {
    ++stats.num_ooms;
    std::ostringstream text;
    text << "sim out of memory. Tried to allocate " << size << " bytes on sim:" << device_ << "; " << reserved()
         << " are reserved, " << stats.allocated_bytes[0].current << " of them allocated, and at most " << limit
         << " may be.";
    TORCH_CHECK_WITH(OutOfMemoryError, false, text.str());
  }
  segments_[at] = wanted;
  std::memset(arena_->readable(arena_->front + at), kPoison, wanted);  // nobody had it: nothing to wait for
  add(stats.reserved_bytes, static_cast<int64_t>(wanted));
  add(stats.segment, 1);
  return blocks_.emplace(at, Block{wanted, at, stream, small}).first;
}

DeviceMemory::Blocks::iterator DeviceMemory::block_at(const void* p) {
  return blocks_.find(static_cast<size_t>(static_cast<const char*>(p) - arena_->front));
}

void DeviceMemory::free(void* p) {
  Locked lock;
  auto at = block_at(p);
  TORCH_INTERNAL_ASSERT(at != blocks_.end() && at->second.used);
  auto& block = at->second;
  add(stats.allocated_bytes, -static_cast<int64_t>(block.size));
  add(stats.allocation, -1);
  for (int other : block.others) {
    if (other != block.stream) block.pending.push_back(engine().record(other));
  }
  block.others.clear();
  block.used = false;
  if (block.is_free()) join_with_neighbours(at);
}

void DeviceMemory::join_with_neighbours(Blocks::iterator block) {
  const auto joins = [](Blocks::iterator a, Blocks::iterator b) {
    return a->second.is_free() && b->second.is_free() && a->second.segment == b->second.segment &&
        a->first + a->second.size == b->first;
  };
  if (auto next = std::next(block); next != blocks_.end() && joins(block, next)) {
    block->second.size += next->second.size;
    blocks_.erase(next);
  }
  if (block == blocks_.begin()) return;
  if (auto before = std::prev(block); joins(before, block)) {
    before->second.size += block->second.size;
    blocks_.erase(block);
  }
}

void DeviceMemory::look_at_pending() {
  std::vector<size_t> done;
  for (auto& [at, block] : blocks_) {
    auto& marks = block.pending;
    if (marks.empty()) continue;
    if (std::all_of(marks.begin(), marks.end(), [](const auto& mark) { return engine().is_done(mark); })) {
      done.push_back(at);
    }
  }
  for (size_t at : done) {
    auto block = blocks_.find(at);
    if (block == blocks_.end()) continue;  // joined with one before it
    block->second.pending.clear();
    join_with_neighbours(block);
  }
}

void DeviceMemory::empty_cache() {
  Locked lock;
  engine().synchronize_all();  // as cudaFree does
  look_at_pending();
  for (auto segment = segments_.begin(); segment != segments_.end();) {
    const auto [at, size] = *segment;
    auto block = blocks_.find(at);
    if (!block->second.is_free() || block->second.size != size) {
      ++segment;
      continue;
    }
    arena_->release(at, size);
    engine().forget(address(arena_->front + at), address(arena_->front + at + size));
    add(stats.reserved_bytes, -static_cast<int64_t>(size));
    add(stats.segment, -1);
    blocks_.erase(block);
    segment = segments_.erase(segment);
  }
}

void DeviceMemory::record_stream(void* p, int stream) {
  Locked lock;
  if (auto block = block_at(p); block != blocks_.end()) block->second.others.insert(stream);
}

void DeviceMemory::reset_peaks() {
  Locked lock;
  for (auto* kind : {&stats.allocated_bytes, &stats.reserved_bytes, &stats.allocation, &stats.segment}) {
    (*kind)[0].reset_peak();
  }
}

// ---- PyTorch's view ----

Allocator& allocator() {
  static auto* one = new Allocator();
  return *one;
}

at::DataPtr Allocator::allocate(size_t bytes) {
  const int device = current_device();
  const c10::Device where(kSim, static_cast<c10::DeviceIndex>(device));
  if (bytes == 0) return {nullptr, nullptr, raw_deleter(), where};
  char* p = device_memory(device).allocate(bytes);
  return {p, p, raw_deleter(), where};
}

at::DeleterFnPtr Allocator::raw_deleter() const {
  return [](void* p) {
    if (auto* owner = p ? owner_of(p) : nullptr) owner->free(p);
  };
}

void Allocator::copy_data(void* dest, const void* src, size_t count) const {
  const auto from = address(src), to = address(dest);
  char *target = readable(dest), *source = readable(src);
  engine().issue(current_stream(current_device()), "a clone", {{from, from + count, false}, {to, to + count, true}},
                 [=] { std::memcpy(target, source, count); });
}

void Allocator::emptyCache(c10::MempoolId_t) {
  for (int n = 0; n < device_count(); ++n) {
    if (is_touched(n)) device_memory(n).empty_cache();
  }
}

void Allocator::recordStream(const at::DataPtr& ptr, c10::Stream stream) {
  if (auto* owner = owner_of(ptr.get())) owner->record_stream(ptr.get(), engine_stream(stream.device_index(), stream.id()));
}

c10::CachingDeviceAllocator::DeviceStats Allocator::getDeviceStats(c10::DeviceIndex device) {
  Locked lock;
  return device_memory(device).stats;
}

void Allocator::resetAccumulatedStats(c10::DeviceIndex device) {
  auto& stats = device_memory(device).stats;
  stats.num_ooms = stats.num_alloc_retries = 0;
}

void Allocator::resetPeakStats(c10::DeviceIndex device) { device_memory(device).reset_peaks(); }

std::pair<size_t, size_t> Allocator::getMemoryInfo(c10::DeviceIndex device) {
  const auto& memory = device_memory(device);
  return {total_memory() - memory.context() - memory.reserved(), total_memory()};
}

}  // namespace sim

// What PyTorch asks of a kind of device: guard, hooks and generators.
#include "device.h"

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "memory.h"
#include "pinned.h"
#include "random.h"

namespace sim {

// ---- devices, and who uses them ----

namespace {

struct Usage {
  std::vector<bool> touched = std::vector<bool>(device_count());
  pid_t process = 0;  // that has used a device; 0 if none has
};

Usage& usage() {
  static auto* one = new Usage();
  return *one;
}

thread_local int device_of_thread = 0;

std::vector<int>& streams_of_thread() {
  thread_local std::vector<int> streams = [] {
    std::vector<int> defaults;
    for (int n = 0; n < device_count(); ++n) defaults.push_back(n);
    return defaults;
  }();
  return streams;
}

}  // namespace

int device_count() {
  static const int count = [] {
    const char* value = std::getenv("SIM_DEVICES");
    return value && *value ? std::max(1, std::atoi(value)) : 2;
  }();
  return count;
}

int current_device() { return device_of_thread; }

void set_current_device(int device) {
  TORCH_CHECK(device >= 0 && device < device_count(), "sim: there is no device ", device);
  device_of_thread = device;
}

int current_stream(int device) { return streams_of_thread().at(device); }
void set_current_stream(int device, int stream) { streams_of_thread().at(device) = stream; }
int engine_stream(int device, int64_t id) { return id == 0 ? device : static_cast<int>(id); }
int64_t stream_id(int stream) { return stream < device_count() ? 0 : stream; }

bool in_bad_fork() { return usage().process != 0 && usage().process != getpid(); }

void touch(int device) {
  TORCH_CHECK(!in_bad_fork(), "Cannot re-initialize sim in forked subprocess: the parent has used a device");
  usage().process = getpid();
  usage().touched.at(device) = true;
}

bool is_touched(int device) { return usage().touched.at(device); }

// ---- generators ----

namespace {

constexpr uint64_t kOtherNumbers = 0x5DEECE66DULL;

class Generator final : public c10::GeneratorImpl {
 public:
  explicit Generator(int device)
      : c10::GeneratorImpl(c10::Device(kSim, static_cast<c10::DeviceIndex>(device)),
                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)) {
    set_current_seed(c10::default_rng_seed_val);
  }
  void set_current_seed(uint64_t seed) override {
    seed_ = seed;
    cpu.set_current_seed(seed ^ kOtherNumbers);
  }
  uint64_t current_seed() const override { return seed_; }
  uint64_t seed() override {
    set_current_seed(c10::detail::getNonDeterministicRandom());
    return seed_;
  }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  void set_state(const c10::TensorImpl& state) override { cpu.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return cpu.unsafeGetGeneratorImpl()->get_state(); }

  at::Generator cpu = at::detail::createCPUGenerator();

 private:
  uint64_t seed_ = 0;
  Generator* clone_impl() const override {
    auto* copy = new Generator(device().index());
    copy->seed_ = seed_;
    copy->cpu = cpu.clone();
    return copy;
  }
};

}  // namespace

at::Generator new_generator(int device) { return at::make_generator<Generator>(device); }

at::Generator& default_generator(int device) {
  static auto* all = [] {
    auto* generators = new std::vector<at::Generator>();
    for (int n = 0; n < device_count(); ++n) generators->push_back(new_generator(n));
    return generators;
  }();
  return all->at(device);
}

at::Generator cpu_generator_of(const at::Generator& generator) {
  return static_cast<Generator*>(generator.unsafeGetGeneratorImpl())->cpu;
}

// ---- guard ----

namespace {

int index_of(c10::Device device) { return device.index() < 0 ? current_device() : device.index(); }

struct Guard final : c10::impl::DeviceGuardImplInterface {
  using Device = c10::Device;
  using Stream = c10::Stream;
  using Event = std::shared_ptr<Mark>;
  static constexpr auto static_type = kSim;

  static Device device(int n) { return {kSim, static_cast<c10::DeviceIndex>(n)}; }
  static Stream stream(int n, int engine_number) { return Stream(Stream::UNSAFE, device(n), stream_id(engine_number)); }
  static int number(const Stream& s) { return engine_stream(s.device_index(), s.id()); }

  c10::DeviceType type() const override { return kSim; }
  Device exchangeDevice(Device d) const override {
    const int before = current_device();
    if (d.index() >= 0) set_current_device(d.index());
    return device(before);
  }
  Device getDevice() const override { return device(current_device()); }
  void setDevice(Device d) const override { set_current_device(index_of(d)); }
  void uncheckedSetDevice(Device d) const noexcept override { set_current_device(index_of(d)); }
  c10::DeviceIndex deviceCount() const noexcept override { return static_cast<c10::DeviceIndex>(device_count()); }
  c10::DeviceCapability getDeviceCapability(Device) const override { return {}; }

  Stream getStream(Device d) const override { return stream(index_of(d), current_stream(index_of(d))); }
  Stream getDefaultStream(Device d) const override { return stream(index_of(d), index_of(d)); }
  Stream getNewStream(Device d, int) const override {
    touch(index_of(d));
    return stream(index_of(d), engine().new_stream());
  }
  Stream getStreamFromGlobalPool(Device d, bool) const override { return getNewStream(d, 0); }
  Stream exchangeStream(Stream s) const override {
    const int device = s.device_index();
    const auto before = stream(device, current_stream(device));
    set_current_stream(device, number(s));
    return before;
  }
  bool queryStream(const Stream& s) const override { return engine().query_stream(number(s)); }
  void synchronizeStream(const Stream& s) const override { engine().synchronize(number(s)); }
  void synchronizeDevice(c10::DeviceIndex) const override { engine().synchronize_all(); }

  void record(void** event, const Stream& s, c10::DeviceIndex, c10::EventFlag) const override {
    touch(s.device_index());
    auto mark = engine().record(number(s));
    if (*event) {
      *static_cast<Event*>(*event) = mark;
    } else {
      *event = new Event(mark);
    }
  }
  void block(void* event, const Stream& s) const override {
    if (event) engine().wait(number(s), *static_cast<Event*>(event));
  }
  bool queryEvent(void* event) const override { return !event || engine().query(*static_cast<Event*>(event)); }
  void synchronizeEvent(void* event) const override {
    if (event) engine().reach(*static_cast<Event*>(event));
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  double elapsedTime(void* from, void* to, c10::DeviceIndex) const override {
    TORCH_CHECK(from && to, "sim: both events must be recorded before their times are compared");
    const auto &begin = *static_cast<Event*>(from), &end = *static_cast<Event*>(to);
    TORCH_CHECK(begin->done && end->done, "sim: both events must have happened before their times are compared");
    return (end->time - begin->time) * 1000;
  }
  void recordDataPtrOnStream(const c10::DataPtr& ptr, const Stream& s) const override { allocator().recordStream(ptr, s); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

// ---- hooks ----

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex device) const override { return is_touched(device); }
  void init() const override {}
  c10::DeviceIndex deviceCount() const override { return static_cast<c10::DeviceIndex>(device_count()); }
  void setCurrentDevice(c10::DeviceIndex device) const override { set_current_device(device); }
  c10::DeviceIndex getCurrentDevice() const override { return static_cast<c10::DeviceIndex>(current_device()); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    const int before = current_device();
    if (device >= 0) set_current_device(device);
    return static_cast<c10::DeviceIndex>(before);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override { return exchangeDevice(device); }
  bool isPinnedPtr(const void* p) const override { return pinned_memory().has(p); }
  at::Allocator* getPinnedMemoryAllocator() const override { return &host_allocator(); }
  at::Device getDeviceFromPtr(void* p) const override {
    for (int n = 0; n < device_count(); ++n) {
      if (device_memory(n).has(p)) return Guard::device(n);
    }
    return Guard::device(current_device());
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex device) const override {
    return default_generator(device < 0 ? current_device() : device);
  }
  at::Generator getNewGenerator(c10::DeviceIndex device) const override {
    return new_generator(device < 0 ? current_device() : device);
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size) const override {
    OnDevice guard(index_of(storage.device()));
    auto grown = allocator().allocate(size);
    const auto both = std::min(size, storage.nbytes());
    if (both) allocator().copy_data(grown.get(), storage.data(), both);
    storage.set_data_ptr(std::move(grown));
    storage.set_nbytes(size);
  }
};

}  // namespace

void register_hooks() { at::RegisterPrivateUse1HooksInterface(new Hooks()); }

}  // namespace sim

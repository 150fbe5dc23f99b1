// The simulated devices: how many there are, which is current, and which has been used.
#pragma once

#include <c10/core/Device.h>

namespace sim {

constexpr auto kSim = c10::DeviceType::PrivateUse1;

int device_count();

// The calling thread's device.
int current_device();
void set_current_device(int device);

// The calling thread's stream of a device, by the engine's number.
int current_stream(int device);
void set_current_stream(int device, int stream);

// Streams as PyTorch numbers them (0 is the device's default), and as the engine does.
int engine_stream(int device, int64_t id);
int64_t stream_id(int stream);

// Marks a device as used by this process: from then on it holds a context there. Fails in a process that was
// forked from one that had used a device.
void touch(int device);
bool is_touched(int device);
bool in_bad_fork();

// Makes a device current as long as it lives.
class OnDevice {
 public:
  explicit OnDevice(int device) : before_(current_device()) { set_current_device(device); }
  ~OnDevice() { set_current_device(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_;
};

}  // namespace sim

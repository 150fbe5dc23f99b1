// Streams of the simulated devices: queues of tasks that run as late as a policy allows, and the detector of
// accesses that no event orders.
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

namespace sim {

// A vector clock: for each stream, how many of its tasks have certainly happened.
using VectorClock = std::vector<uint64_t>;

// One recording of an event in a stream.
struct Mark {
  int stream;
  VectorClock clock;
  bool done = false;
  double time = 0;  // seconds that the stream, and those it waited for, have computed; valid once done
};

// Bytes that a task reads or writes, by address.
struct Range {
  uintptr_t from, to;
  bool write;
};

// Bytes of pinned host memory that a copy uses, with their checksum when the copy was issued.
struct HostRead {
  uintptr_t from, to;
  uint64_t checksum;
};

enum class Policy { Eager, LateCopies, LateCompute, Late, Random };

class Engine {
 public:
  // Guards everything in this process. Take it through Locked, which gives way to Python's lock.
  std::recursive_mutex mutex;

  void set_policy(Policy policy, uint64_t seed);
  void set_detecting(bool on) { detecting_ = on; }
  void set_fatal(bool on) { fatal_ = on; }
  std::vector<std::string> take_violations();
  const std::vector<std::string>& violations() const { return violations_; }
  void add_violation(const std::string& text);
  uint64_t host_waits() const { return host_waits_; }

  // The first streams are the default streams of the devices.
  explicit Engine(int devices);
  int new_stream();

  void issue(int stream, const std::string& name, const std::vector<Range>& ranges, std::function<void()> work);
  // As issue, for a copy out of pinned host memory: a write by the host before it knows of the copy's end is
  // a violation.
  void issue_host_read(int stream, const std::string& name, const std::vector<Range>& ranges, HostRead read,
                       std::function<void()> work);
  std::shared_ptr<Mark> record(int stream);
  void wait(int stream, const std::shared_ptr<Mark>& mark);

  // What the host does: it waits, or asks without waiting.
  void reach(const std::shared_ptr<Mark>& mark);
  void synchronize(int stream);
  void synchronize_all();
  bool query(const std::shared_ptr<Mark>& mark);
  bool query_stream(int stream);
  // As query, but nothing advances by being asked: for the allocator's own looks.
  bool is_done(const std::shared_ptr<Mark>& mark);

  bool runs_at_once(int stream) const;
  // Runs all of a stream's tasks; the host does not learn of it.
  void drain(int stream);
  void drain_all();
  // Forgets accesses to memory that went back to the system; before it does.
  void forget(uintptr_t from, uintptr_t to);

  // An error that stays: every later call fails with it, as after an illegal access on a real device.
  void fail(const std::string& text);
  void check_alive();

 private:
  struct Task {
    std::function<void()> work;  // empty for a wait or a recording
    std::shared_ptr<Mark> waits, records;
    int threads = 0;  // of whoever issued it: the order of sums depends on it
  };
  struct Queue {
    std::deque<Task> tasks;
    uint64_t issued = 0;
    VectorClock seen;
    double time = 0;
  };
  struct Access {
    Range range;
    int stream;
    uint64_t number;
    std::string name;
  };
  struct PendingRead {
    HostRead read;
    int stream;
    uint64_t number;
    std::string name;
  };

  Policy policy_ = Policy::Eager;
  bool detecting_ = true;
  bool fatal_ = false;
  int devices_;
  std::vector<Queue> queues_;
  VectorClock host_;
  std::vector<Access> accesses_;
  std::vector<PendingRead> reads_;
  std::vector<std::string> violations_;
  uint64_t host_waits_ = 0;
  std::mt19937_64 random_;
  std::string error_;

  void push(int stream, Task task);
  void run_one(int stream);
  void run_until(const std::shared_ptr<Mark>& mark);
  void advance_some();
  void host_learns(const VectorClock& clock);
  void check_races(int stream, const std::string& name, const std::vector<Range>& ranges);
  void check_host_writes();
};

Engine& engine();

uint64_t checksum(uintptr_t from, uintptr_t to);

// The engine to oneself. A thread that has to wait for it lets Python's lock go first: a task that runs
// meanwhile may need that lock to count a tensor's references.
class Locked {
 public:
  Locked();
  ~Locked() { engine().mutex.unlock(); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;
};

}  // namespace sim

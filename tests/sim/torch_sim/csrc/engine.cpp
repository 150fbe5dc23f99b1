#include <Python.h>

#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <sstream>

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include "device.h"

namespace sim {

namespace {

constexpr size_t kQueueLimit = 1024;  // tasks that wait in a stream, as with CUDA's launch queue
constexpr size_t kViolationsKept = 1000;

void merge(VectorClock& into, const VectorClock& from) {
  if (into.size() < from.size()) into.resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

bool knows(const VectorClock& clock, int stream, uint64_t number) {
  return static_cast<size_t>(stream) < clock.size() && clock[stream] >= number;
}

VectorClock only(int stream, uint64_t number) {
  VectorClock clock(stream + 1);
  clock[stream] = number;
  return clock;
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Engine& engine() {
  static auto* one = new Engine(device_count());  // never destroyed: tensors are freed while the process ends
  return *one;
}

uint64_t checksum(uintptr_t from, uintptr_t to) {
  uint64_t sum = 0xCBF29CE484222325ULL, word;
  const auto* at = reinterpret_cast<const char*>(from);
  const auto* end = reinterpret_cast<const char*>(to);
  for (; at + 8 <= end; at += 8) {
    std::memcpy(&word, at, 8);
    sum = (sum ^ word) * 0x100000001B3ULL + (sum >> 31);
  }
  for (; at < end; ++at) sum = (sum ^ static_cast<unsigned char>(*at)) * 0x100000001B3ULL;
  return sum;
}

Locked::Locked() {
  auto& mutex = engine().mutex;
  if (mutex.try_lock()) return;
  PyThreadState* state = Py_IsInitialized() && PyGILState_Check() ? PyEval_SaveThread() : nullptr;
  mutex.lock();
  if (state) PyEval_RestoreThread(state);
}

Engine::Engine(int devices) : devices_(devices), queues_(devices) {}

void Engine::set_policy(Policy policy, uint64_t seed) {
  Locked lock;
  drain_all();
  policy_ = policy;
  random_.seed(seed);
}

int Engine::new_stream() {
  Locked lock;
  queues_.emplace_back();
  return static_cast<int>(queues_.size()) - 1;
}

bool Engine::runs_at_once(int stream) const {
  const bool is_default = stream < devices_;
  return policy_ == Policy::Eager || (policy_ == Policy::LateCopies && is_default) ||
      (policy_ == Policy::LateCompute && !is_default);
}

// ---- issuing ----

void Engine::issue(int stream, const std::string& name, const std::vector<Range>& ranges,
                   std::function<void()> work) {
  Locked lock;
  check_alive();
  auto& queue = queues_.at(stream);
  merge(queue.seen, host_);  // the host issues it after all that it has waited for
  ++queue.issued;
  if (detecting_) check_races(stream, name, ranges);
  push(stream, {std::move(work), nullptr, nullptr, at::get_num_threads()});
}

void Engine::issue_host_read(int stream, const std::string& name, const std::vector<Range>& ranges, HostRead read,
                             std::function<void()> work) {
  Locked lock;
  check_host_writes();
  reads_.push_back({read, stream, queues_.at(stream).issued + 1, name});
  issue(stream, name, ranges, std::move(work));
}

std::shared_ptr<Mark> Engine::record(int stream) {
  Locked lock;
  auto& queue = queues_.at(stream);
  auto mark = std::make_shared<Mark>();
  mark->stream = stream;
  mark->clock = queue.seen;
  merge(mark->clock, only(stream, queue.issued));
  push(stream, {nullptr, nullptr, mark, 0});
  return mark;
}

void Engine::wait(int stream, const std::shared_ptr<Mark>& mark) {
  Locked lock;
  merge(queues_.at(stream).seen, mark->clock);
  push(stream, {nullptr, mark, nullptr, 0});
}

void Engine::push(int stream, Task task) {
  queues_.at(stream).tasks.push_back(std::move(task));
  if (runs_at_once(stream)) drain(stream);
  while (queues_[stream].tasks.size() > kQueueLimit) run_one(stream);
  if (policy_ == Policy::Random) advance_some();
}

// ---- running ----

// Lets some streams go some way, never past a wait whose event has not happened.
void Engine::advance_some() {
  for (auto rounds = random_() % 4; rounds > 0; --rounds) {
    const int stream = static_cast<int>(random_() % queues_.size());
    auto& tasks = queues_[stream].tasks;
    for (auto steps = random_() % 8; steps > 0 && !tasks.empty(); --steps) {
      if (tasks.front().waits && !tasks.front().waits->done) break;
      run_one(stream);
    }
  }
}

void Engine::run_one(int stream) {
  Task task = std::move(queues_[stream].tasks.front());
  queues_[stream].tasks.pop_front();
  if (task.waits) run_until(task.waits);
  auto& time = queues_[stream].time;
  if (task.waits) time = std::max(time, task.waits->time);
  if (task.work) {
    const int own = at::get_num_threads();
    if (own != task.threads) at::set_num_threads(task.threads);
    const double began = steady_seconds();
    try {
      task.work();
    } catch (const std::exception& error) {
      fail(error.what());  // reported when the host next waits or issues, as by a device
    }
    queues_[stream].time += steady_seconds() - began;
    if (own != task.threads) at::set_num_threads(own);
  }
  if (task.records) {
    task.records->time = queues_[stream].time;
    task.records->done = true;
  }
}

void Engine::run_until(const std::shared_ptr<Mark>& mark) {
  while (!mark->done) run_one(mark->stream);
}

void Engine::drain(int stream) {
  while (!queues_[stream].tasks.empty()) run_one(stream);
}

void Engine::drain_all() {
  for (size_t stream = 0; stream < queues_.size(); ++stream) drain(static_cast<int>(stream));
}

// ---- what the host learns ----

void Engine::host_learns(const VectorClock& clock) {
  check_host_writes();  // before: what it writes from now on is ordered
  merge(host_, clock);
  reads_.erase(std::remove_if(reads_.begin(), reads_.end(),
                              [&](const PendingRead& r) { return knows(host_, r.stream, r.number); }),
               reads_.end());
}

void Engine::reach(const std::shared_ptr<Mark>& mark) {
  Locked lock;
  ++host_waits_;
  if (policy_ == Policy::Random) advance_some();
  run_until(mark);
  host_learns(mark->clock);
  check_alive();
}

void Engine::synchronize(int stream) {
  Locked lock;
  ++host_waits_;
  if (policy_ == Policy::Random) advance_some();
  drain(stream);
  auto clock = queues_[stream].seen;
  merge(clock, only(stream, queues_[stream].issued));
  host_learns(clock);
  check_alive();
}

void Engine::synchronize_all() {
  Locked lock;
  for (size_t stream = 0; stream < queues_.size(); ++stream) synchronize(static_cast<int>(stream));
}

bool Engine::query(const std::shared_ptr<Mark>& mark) {
  Locked lock;
  if (!mark->done) {  // one step each time that it is asked: whoever asks on gets there
    run_one(mark->stream);
    return false;
  }
  host_learns(mark->clock);
  return true;
}

bool Engine::query_stream(int stream) {
  Locked lock;
  if (queues_.at(stream).tasks.empty()) {
    synchronize(stream);
    return true;
  }
  run_one(stream);
  return false;
}

bool Engine::is_done(const std::shared_ptr<Mark>& mark) {
  Locked lock;
  if (mark->done) host_learns(mark->clock);
  return mark->done;
}

// ---- errors and violations ----

void Engine::fail(const std::string& text) {
  if (error_.empty()) error_ = text;
}

void Engine::check_alive() {
  if (fatal_ && error_.empty() && !violations_.empty()) error_ = violations_.front();
  if (error_.empty()) return;
  const c10::SourceLocation here{__func__, __FILE__, static_cast<uint32_t>(__LINE__)};
  throw c10::AcceleratorError(here, 700, "sim error: an illegal access was encountered (" + error_ + ")");
}

void Engine::add_violation(const std::string& text) {
  if (violations_.size() < kViolationsKept) violations_.push_back(text);
}

std::vector<std::string> Engine::take_violations() {
  Locked lock;
  check_host_writes();
  return std::exchange(violations_, {});
}

void Engine::check_host_writes() {
  if (!detecting_) return;
  for (auto& pending : reads_) {
    if (checksum(pending.read.from, pending.read.to) == pending.read.checksum) continue;
    add_violation("race: the host writes what " + pending.name + " on stream " + std::to_string(pending.stream) +
                  " reads, and has not waited for it");
    pending.read.checksum = checksum(pending.read.from, pending.read.to);
  }
}

// Holds each access against those before it to the same bytes: one of them writes, and nothing orders them.
void Engine::check_races(int stream, const std::string& name, const std::vector<Range>& ranges) {
  const auto& queue = queues_[stream];
  for (const auto& range : ranges) {
    if (range.from >= range.to) continue;
    std::vector<Access> kept;
    kept.reserve(accesses_.size() + 1);
    for (auto& before : accesses_) {
      const bool apart = before.range.to <= range.from || range.to <= before.range.from;
      const bool same_task = before.stream == stream && before.number == queue.issued;
      if (apart || same_task) {
        kept.push_back(std::move(before));
        continue;
      }
      const bool ordered = before.stream == stream || knows(queue.seen, before.stream, before.number);
      if (!ordered && (range.write || before.range.write)) {
        std::ostringstream text;
        text << "race: " << name << " on stream " << stream << (range.write ? " writes " : " reads ") << "what "
             << before.name << " on stream " << before.stream << (before.range.write ? " writes" : " reads")
             << ", and no event orders them";
        add_violation(text.str());
      }
      const bool covered = range.from <= before.range.from && before.range.to <= range.to;
      if (!(covered && ordered && (range.write || !before.range.write))) kept.push_back(std::move(before));
    }
    kept.push_back({range, stream, queue.issued, name});
    accesses_ = std::move(kept);
  }
}

void Engine::forget(uintptr_t from, uintptr_t to) {
  Locked lock;
  accesses_.erase(std::remove_if(accesses_.begin(), accesses_.end(),
                                 [&](const Access& a) { return from <= a.range.from && a.range.to <= to; }),
                  accesses_.end());
  // memory that is gone must not be read for its checksum
  reads_.erase(std::remove_if(reads_.begin(), reads_.end(),
                              [&](const PendingRead& r) { return from < r.read.to && r.read.from < to; }),
               reads_.end());
}

}  // namespace sim

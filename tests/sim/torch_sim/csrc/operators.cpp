// Every operator: computed by the CPU's kernels, when its stream comes to it.
#include <functional>
#include <optional>
#include <unordered_set>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include "random.h"
#include "tensors.h"

namespace sim {
namespace {

using at::Tensor;
using c10::IValue;
using Stack = torch::jit::Stack;
using View = std::function<Tensor(const Tensor&)>;

const c10::DispatchKeySet kCpu(c10::DispatchKey::CPU);

// Shapes or errors depend on numbers: the host waits, as with CUDA.
const std::unordered_set<std::string> kWaits = {
    "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
    "aten::repeat_interleave", "aten::bincount", "aten::equal", "aten::multinomial", "aten::linalg_inv_ex",
    "aten::linalg_cholesky_ex", "aten::linalg_lu_factor_ex", "aten::linalg_solve_ex"};
// Indices may lie on the CPU.
const std::unordered_set<std::string> kTakesIndices = {"aten::index", "aten::index_put", "aten::index_put_",
                                                       "aten::_index_put_impl_"};
// Draw random numbers without an argument that says so.
const std::unordered_set<std::string> kDraws = {"aten::native_dropout", "aten::bernoulli_"};

Tensor zeros_like_it(const Tensor& t) {
  return at::empty_strided(t.sizes(), t.strides(), at::TensorOptions().dtype(t.dtype()).device(at::kCPU)).zero_();
}

bool is_generator(const c10::Argument& argument) { return argument.type()->str().rfind("Generator", 0) == 0; }

bool writes(const c10::Argument& argument) { return argument.alias_info() && argument.alias_info()->isWrite(); }

// One call of an operator, its arguments as the host gave them.
class Call {
 public:
  Call(const c10::OperatorHandle& op, Stack* stack) : op_(op), name_(op.schema().name()), stack_(stack) {
    const auto& declared = op.schema().arguments();
    auto given = torch::jit::last(*stack, declared.size());
    arguments_.assign(given.begin(), given.end());
    waits_ = kWaits.count(name_) > 0 || returns_other_than_tensors();
    for (size_t i = 0; i < declared.size(); ++i) take(arguments_[i], declared[i]);
  }

  void run() {
    const int device = device_.value_or(current_device());
    OnDevice guard(device);
    draw_numbers_of_now(device);
    Locked lock;
    touch(device);
    engine().check_alive();
    const int stream = current_stream(device);
    if (waits_) engine().synchronize(stream);
    const bool now = waits_ || engine().runs_at_once(stream);
    now ? run_now(stream) : run_later(stream);
    engine().check_alive();
  }

 private:
  const c10::OperatorHandle& op_;
  std::string name_;
  Stack* stack_;
  std::vector<IValue> arguments_;
  std::vector<Range> ranges_;
  std::vector<Tensor> unsized_;    // out arguments that have no memory yet
  std::vector<bool> is_new_;       // by result: whether it is a new tensor
  std::optional<int> device_;
  at::Generator generator_, numbers_;  // as given; and the CPU's, as it stood at the call
  bool waits_ = false;

  bool returns_other_than_tensors() const {
    for (const auto& returned : op_.schema().returns()) {
      const auto kind = returned.type()->kind();
      if (kind != c10::TypeKind::TensorType && kind != c10::TypeKind::ListType) return true;
    }
    return false;
  }

  // ---- arguments ----

  void take(IValue& value, const c10::Argument& declared) {
    const bool write = writes(declared);
    if (value.isTensor()) {
      value = take(value.toTensor(), write);
      const Tensor& t = value.toTensor();
      if (write && declared.kwarg_only() && is_ours(t) && !t.numel()) unsized_.push_back(t);
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& t : value.toTensorVector()) list.push_back(take(t, write));
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const std::optional<Tensor>& t : value.toOptionalTensorList().vec()) {
        const bool there = t && t->defined();
        list.push_back(there ? std::optional<Tensor>(take(*t, write)) : t);
        waits_ = waits_ || (there && t->scalar_type() == at::kBool);
      }
      value = list;
    } else if (value.isGenerator()) {
      generator_ = value.toGenerator();
    } else if (value.isDevice() && value.toDevice().type() == kSim && value.toDevice().index() >= 0) {
      device_ = value.toDevice().index();
    }
  }

  Tensor take(const Tensor& t, bool write) {
    if (!t.defined()) return t;
    if (is_ours(t)) {
      const int device = t.device().index();
      TORCH_CHECK(!device_ || *device_ == device, "Expected all tensors to be on the same device, but found at least two devices, sim:",
                  device_.value_or(0), " and sim:", device, "! (", name_, ")");
      device_ = device;
      ranges_.push_back(range_of(t, write));
      return t;
    }
    const bool may = t.device().is_cpu() && (t.dim() == 0 || kTakesIndices.count(name_));
    TORCH_CHECK(may && !write, "Expected all tensors to be on the same device, but found at least two devices, sim:0 and ",
                t.device(), "! (", name_, ")");
    auto copy = t.clone();  // the host may write into its own
    if (t.unsafeGetTensorImpl()->is_wrapped_number()) copy.unsafeGetTensorImpl()->set_wrapped_number(true);
    return copy;
  }

  // Random numbers are those of the moment of the call, however late it runs.
  void draw_numbers_of_now(int device) {
    const auto& declared = op_.schema().arguments();
    const bool draws = std::any_of(declared.begin(), declared.end(), is_generator) || kDraws.count(name_);
    if (!draws) return;
    const auto own = generator_.defined() ? generator_ : default_generator(device);
    TORCH_CHECK(own.device().type() == kSim, "Expected a 'sim' device type for generator but found '", own.device(), "'");
    auto cpu = cpu_generator_of(own);
    numbers_ = cpu.clone();
    compute(&zeros_like_it, cpu);  // draws as many
  }

  Stack arguments_for(const View& view, const at::Generator& numbers) const {
    const auto one = [&](const Tensor& t) {
      if (!is_ours(t)) return t;
      for (const auto& out : unsized_) {
        if (out.is_same(t)) return at::empty({0}, at::TensorOptions().dtype(t.dtype()));
      }
      return view(t);
    };
    Stack made;
    const auto& declared = op_.schema().arguments();
    for (size_t i = 0; i < arguments_.size(); ++i) {
      const auto& value = arguments_[i];
      if (value.isTensor()) {
        made.emplace_back(one(value.toTensor()));
      } else if (value.isTensorList()) {
        c10::List<Tensor> list;
        for (const Tensor& t : value.toTensorVector()) list.push_back(one(t));
        made.emplace_back(list);
      } else if (value.isOptionalTensorList()) {
        c10::List<std::optional<Tensor>> list;
        for (const std::optional<Tensor>& t : value.toOptionalTensorList().vec()) {
          list.push_back(t ? std::optional<Tensor>(one(*t)) : t);
        }
        made.emplace_back(list);
      } else if (value.isDevice()) {
        made.emplace_back(c10::Device(at::kCPU));
      } else if (is_generator(declared[i]) && numbers.defined()) {
        made.emplace_back(numbers);
      } else {
        made.push_back(value);
      }
    }
    return made;
  }

  Stack compute(const View& view, const at::Generator& numbers) const {
    KernelScope scope;
    Stack computed = arguments_for(view, numbers);
    op_.redispatchBoxed(kCpu, &computed);
    return computed;
  }

  // ---- running ----

  void run_now(int stream) {
    engine().drain(stream);
    Stack results;
    const auto before = ranges_;
    // its accesses are reported before they happen; its results' memory is known only after
    engine().issue(stream, name_, before, [] {});
    results = compute(&as_kernel_sees, numbers_);
    std::vector<Tensor> fresh;
    auto returned = returned_for(results, fresh);
    std::vector<Range> written;
    for (const auto& t : fresh) written.push_back(range_of(t, true));
    engine().issue(stream, name_, written, [] {});
    engine().drain(stream);
    KernelScope scope;
    store(results, is_new_, kernel_views(fresh));
    hand_back(std::move(returned));
  }

  void run_later(int stream) {
    // a result has a shape before it has numbers: a run on zeros tells it
    at::Generator numbers = numbers_.defined() ? numbers_.clone() : numbers_;
    const Stack shaped = compute(&zeros_like_it, numbers);
    std::vector<Tensor> fresh;
    auto returned = returned_for(shaped, fresh);
    auto ranges = ranges_;
    for (const auto& t : fresh) ranges.push_back(range_of(t, true));
    engine().issue(stream, name_, ranges,
                   [op = op_, later = arguments_for(&as_kernel_sees, numbers_), targets = kernel_views(fresh), is_new = is_new_]() mutable {
                     KernelScope scope;
                     op.redispatchBoxed(kCpu, &later);
                     store(later, is_new, targets);
                   });
    hand_back(std::move(returned));
  }

  void hand_back(std::vector<IValue> returned) {
    torch::jit::drop(*stack_, arguments_.size());
    for (auto& value : returned) stack_->push_back(std::move(value));
  }

  static std::vector<Tensor> kernel_views(const std::vector<Tensor>& tensors) {
    std::vector<Tensor> views;
    for (const auto& t : tensors) views.push_back(as_kernel_sees(t));
    return views;
  }

  // ---- results ----

  Tensor fresh_like(const Tensor& like, std::vector<Tensor>& fresh) const {
    if (!like.defined()) return like;
    fresh.push_back(empty_on(device_.value_or(current_device()), like.sizes(), like.strides(), like.scalar_type()));
    return fresh.back();
  }

  // What the host gets: the arguments that were written to, and new tensors for all else.
  std::vector<IValue> returned_for(const Stack& results, std::vector<Tensor>& fresh) {
    const auto& declared = op_.schema().returns();
    std::vector<IValue> returned;
    for (size_t i = 0; i < results.size(); ++i) {
      const auto before = fresh.size();
      if (writes(declared[i])) {
        returned.push_back(argument_of(*declared[i].alias_info(), results[i], fresh));
      } else if (results[i].isTensor()) {
        returned.emplace_back(fresh_like(results[i].toTensor(), fresh));
      } else if (results[i].isTensorList()) {
        c10::List<Tensor> list;
        for (const Tensor& t : results[i].toTensorVector()) list.push_back(fresh_like(t, fresh));
        returned.emplace_back(list);
      } else {
        returned.push_back(results[i]);
      }
      is_new_.push_back(fresh.size() > before);
    }
    return returned;
  }

  IValue argument_of(const c10::AliasInfo& alias, const IValue& result, std::vector<Tensor>& fresh) const {
    const auto& declared = op_.schema().arguments();
    for (size_t i = 0; i < declared.size(); ++i) {
      if (!declared[i].alias_info() || !(*declared[i].alias_info() == alias)) continue;
      for (const auto& out : unsized_) {
        if (!arguments_[i].isTensor() || !out.is_same(arguments_[i].toTensor())) continue;
        out.resize_(result.toTensor().sizes());
        fresh.push_back(out);
        return out;
      }
      return arguments_[i];
    }
    TORCH_CHECK(false, "sim: ", name_, " returns what it was not given");
  }

  static void store(const Stack& results, const std::vector<bool>& is_new, const std::vector<Tensor>& targets) {
    size_t next = 0;
    for (size_t i = 0; i < results.size(); ++i) {
      if (!is_new[i]) continue;
      if (results[i].isTensor()) {
        targets[next++].copy_(results[i].toTensor());
        continue;
      }
      for (const Tensor& t : results[i].toTensorVector()) {
        if (t.defined()) targets[next++].copy_(t);
      }
    }
  }
};

}  // namespace

void run_operator(const c10::OperatorHandle& op, Stack* stack) { Call(op, stack).run(); }

// Operators that are composed of others, and that the CPU has kernels of its own for, with other low bits: the
// CPU's are taken.
void take_cpu_kernels() {
  using c10::DispatchKey;
  static auto* library = new torch::Library(torch::Library::IMPL, "aten", DispatchKey::PrivateUse1, __FILE__, __LINE__);
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    const auto op = c10::Dispatcher::singleton().findOp(name);
    if (name.name.rfind("aten::", 0) != 0 || !op || !op->hasSchema()) continue;
    const auto& returns = op->schema().returns();
    const bool is_view = std::any_of(returns.begin(), returns.end(),
                                     [](const auto& r) { return r.alias_info() && !r.alias_info()->isWrite(); });
    const bool is_composed = op->hasKernelForDispatchKey(DispatchKey::CompositeExplicitAutograd) ||
        op->hasKernelForDispatchKey(DispatchKey::CompositeImplicitAutograd) ||
        op->hasKernelForDispatchKey(DispatchKey::CompositeExplicitAutogradNonFunctional);
    if (is_view || !is_composed || !op->hasKernelForDispatchKey(DispatchKey::CPU)) continue;
    if (op->hasKernelForDispatchKey(DispatchKey::PrivateUse1)) continue;
    const auto full = name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
    library->impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&run_operator>());
  }
}

}  // namespace sim

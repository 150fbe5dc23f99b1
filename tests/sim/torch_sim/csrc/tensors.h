// Tensors of a device as kernels see them, and the bytes that they occupy.
#pragma once

#include <ATen/ATen.h>

#include "memory.h"

namespace sim {

inline bool is_ours(const at::Tensor& t) { return t.defined() && t.device().type() == kSim; }

inline char* first_byte(const at::Tensor& t) {
  return static_cast<char*>(const_cast<void*>(t.storage().data())) + t.storage_offset() * static_cast<int64_t>(t.itemsize());
}

// The bytes from a tensor's first number to its last.
Range range_of(const at::Tensor& t, bool write);

// A CPU tensor over the same bytes. It keeps nothing alive: they are there as long as the stream's order is kept.
at::Tensor as_kernel_sees(const at::Tensor& t);

// A tensor on a device of that shape, strides and dtype, without numbers.
at::Tensor empty_on(int device, at::IntArrayRef size, at::IntArrayRef stride, at::ScalarType dtype);

// Nothing of the thread that happens to run a task may change what it computes.
struct KernelScope {
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};
  at::AutoDispatchBelowADInplaceOrView below_autograd;
};

// Runs any operator on the CPU's kernels, in the time of the current stream.
void run_operator(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace sim

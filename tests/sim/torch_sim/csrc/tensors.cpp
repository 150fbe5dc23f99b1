// What is no computing: memory for tensors, views of it, and copies.
#include "tensors.h"

#include <ATen/EmptyTensor.h>
#include <ATen/NativeFunctions.h>
#include <torch/library.h>

#include "pinned.h"

namespace sim {

using at::Tensor;

Range range_of(const Tensor& t, bool write) {
  if (!t.numel()) return {0, 0, write};
  int64_t last = 0;
  for (int64_t d = 0; d < t.dim(); ++d) last += (t.size(d) - 1) * t.stride(d);
  const auto at = address(first_byte(t));
  return {at, at + static_cast<uintptr_t>(last + 1) * t.itemsize(), write};
}

Tensor as_kernel_sees(const Tensor& t) {
  const auto options = at::TensorOptions().dtype(t.dtype()).device(at::kCPU);
  if (!t.numel()) return at::empty_strided(t.sizes(), t.strides(), options);
  return at::from_blob(readable(first_byte(t)), t.sizes(), t.strides(), options);
}

Tensor empty_on(int device, at::IntArrayRef size, at::IntArrayRef stride, at::ScalarType dtype) {
  OnDevice guard(device);
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &allocator(), keys, dtype);
}

namespace {

int wanted(std::optional<at::Device> device) { return device && device->index() >= 0 ? device->index() : current_device(); }

Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  OnDevice guard(wanted(device));
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &allocator(), keys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  return empty_on(wanted(device), size, stride, c10::dtype_or_default(dtype));
}

const Tensor& grow_to(const Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat>) {
  OnDevice guard(self.device().index());
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(size);
  const size_t needed = static_cast<size_t>(impl->storage_offset() + impl->numel()) * self.itemsize();
  auto storage = impl->unsafe_storage();
  if (needed > storage.nbytes()) {
    auto grown = allocator().allocate(needed);
    if (storage.nbytes()) allocator().copy_data(grown.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr(std::move(grown));
    storage.set_nbytes(needed);
  }
  return self;
}

Tensor& set_storage_offset(Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size, at::IntArrayRef stride) {
  return at::native::set_storage_cpu_(self, std::move(source), offset, size, stride);
}

Tensor& set_storage(Tensor& self, at::Storage source) {
  const auto count = static_cast<int64_t>(source.nbytes() / self.itemsize());
  return at::native::set_storage_cpu_(self, std::move(source), 0, {count}, {});
}

Tensor& set_tensor(Tensor& self, const Tensor& source) { return at::native::set_tensor_(self, source); }

void record_stream(Tensor& self, c10::Stream stream) { allocator().recordStream(self.storage().data_ptr(), stream); }

bool compatible(const Tensor&, const Tensor&) { return true; }

// ---- copies ----

// The host's tensor by its address alone: a device keeps nobody's memory alive.
struct HostView {
  void* at;
  std::vector<int64_t> size, stride;
  at::ScalarType dtype;
  Range range;

  HostView(const Tensor& t, bool write)
      : at(first_byte(t)), size(t.sizes().vec()), stride(t.strides().vec()), dtype(t.scalar_type()), range(range_of(t, write)) {}
  Tensor tensor() const { return at::from_blob(at, size, stride, at::TensorOptions().dtype(dtype)); }
  size_t bytes() const { return range.to - range.from; }
};

void copy_within(const Tensor& from, const Tensor& to) {
  const int device = to.device().index(), stream = current_stream(device);
  const int other = from.device().index();
  if (other != device) engine().wait(stream, engine().record(current_stream(other)));
  auto source = as_kernel_sees(from), target = as_kernel_sees(to);
  if (source.sizes() != target.sizes()) source = source.expand(target.sizes());
  engine().issue(stream, "copy on the device", {range_of(from, false), range_of(to, true)}, [source, target]() mutable {
    KernelScope scope;
    target.copy_(source);
  });
  if (other != device) engine().wait(current_stream(other), engine().record(stream));
}

void copy_to_device(const Tensor& from, const Tensor& to, bool non_blocking) {
  const int stream = current_stream(to.device().index());
  const HostView host(from, false);
  auto target = as_kernel_sees(to);
  if (!pinned_memory().begin_copy(host.at)) {  // staged: the host may write into its own as soon as this returns
    auto staged = from.clone();
    engine().issue(stream, "copy from the host", {range_of(to, true)}, [staged, target]() mutable {
      KernelScope scope;
      target.copy_(staged);
    });
    if (!non_blocking) engine().synchronize(stream);
    return;
  }
  const HostRead read{host.range.from, host.range.to, checksum(host.range.from, host.range.to)};
  engine().issue_host_read(stream, "copy from pinned memory", {host.range, range_of(to, true)}, read, [host, target]() mutable {
    KernelScope scope;
    const bool there = pinned_memory().end_copy(host.at, host.bytes());
    target.copy_(there ? host.tensor() : at::full({}, 255, at::kByte).expand(target.sizes()));
  });
  if (!non_blocking) engine().synchronize(stream);
}

void copy_to_host(const Tensor& from, const Tensor& to, bool non_blocking) {
  const int stream = current_stream(from.device().index());
  const HostView host(to, true);
  const bool is_pinned = pinned_memory().begin_copy(host.at);
  auto source = as_kernel_sees(from);
  engine().issue(stream, "copy to the host", {range_of(from, false), host.range}, [host, source, is_pinned] {
    KernelScope scope;
    if (!is_pinned || pinned_memory().end_copy(host.at, host.bytes())) host.tensor().copy_(source);
  });
  if (!non_blocking || !is_pinned) engine().synchronize(stream);
}

Tensor copy_from(const Tensor& self, const Tensor& dst, bool non_blocking) {
  if (!dst.numel()) return dst;
  const Tensor& other = is_ours(dst) ? self : dst;
  TORCH_CHECK(is_ours(other) || other.device().is_cpu(), "sim: no copies between sim and ", other.device());
  Locked lock;
  if (is_ours(self) && is_ours(dst)) {
    copy_within(self, dst);
  } else if (is_ours(dst)) {
    copy_to_device(self, dst, non_blocking);
  } else {
    copy_to_host(self, dst, non_blocking);
  }
  return dst;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& dst) {
  if (is_ours(dst)) {
    grow_to(dst, self.sizes(), std::nullopt);
  } else {
    dst.resize_(self.sizes());
  }
  return copy_from(self, dst, false);
}

at::Scalar local_scalar(const Tensor& self) {
  const int stream = current_stream(self.device().index());
  engine().issue(stream, "item", {range_of(self, false)}, [] {});
  engine().synchronize(stream);
  return at::native::_local_scalar_dense_cpu(as_kernel_sees(self));
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_operator>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("resize_", &grow_to);
  m.impl("set_.source_Storage_storage_offset", &set_storage_offset);
  m.impl("set_.source_Storage", &set_storage);
  m.impl("set_.source_Tensor", &set_tensor);
  m.impl("record_stream", &record_stream);
  m.impl("_has_compatible_shallow_copy_type", &compatible);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("view_as_real", &at::native::view_as_real);
  m.impl("view_as_complex", &at::native::view_as_complex);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar);
  // composed of other operators differently for each device: here as the CPU does
  for (const char* name : {"scaled_dot_product_attention", "convolution", "rms_norm"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_operator>());
  }
}

// the device has no autograd of its own
TORCH_LIBRARY_IMPL(_, AutogradPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

}  // namespace

}  // namespace sim

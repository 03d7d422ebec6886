// A kernel as ops see it: one typed slot per operation, filled per device by the register lists
// (cpu/register.cpp, cuda/register.cu or cuda/no_cuda.cpp). The contract of each stands in
// backend/kernels/<op>.h.
//
// On the meta device a call does nothing: shapes and allocations are the op's business. A device without an
// implementation is an Error that names both; `has` lets an op fall back to its composed form.
#pragma once
#include <array>
#include <span>

#include "backend/stream.h"
#include "base/process.h"

namespace nibble::backend {

// Told of each kernel call while a profile is taken: its tensors (null for arguments of other types) and its
// duration. Null otherwise, which costs one comparison per call. Threading: of the thread that calls kernels.
class KernelWatch {
 public:
  virtual ~KernelWatch() = default;
  virtual void on_kernel(const char* name, std::span<const Tensor* const> arguments, double seconds) = 0;
};
inline KernelWatch* kernel_watch = nullptr;

template <class Signature>
class KernelSlot;

template <class... Args>
class KernelSlot<void(Stream&, Args...)> {
 public:
  using Function = void (*)(Stream&, Args...);
  explicit constexpr KernelSlot(const char* name) : name_(name) {}

  void set(Device device, Function f) { functions_[static_cast<int>(device)] = f; }
  bool has(Device device) const {
    return device == Device::kMeta || functions_[static_cast<int>(device)] != nullptr;
  }
  const char* name() const { return name_; }

  void operator()(Stream& stream, Args... args) const {
    const Device device = stream.device();
    if (device == Device::kMeta) return;
    const Function f = functions_[static_cast<int>(device)];
    require(f != nullptr, name_, "no {} kernel in this build; use --device cpu", device_name(device));
    if (kernel_watch == nullptr) return f(stream, args...);
    const double began = now_seconds();
    f(stream, args...);
    const double seconds = now_seconds() - began;
    kernel_watch->on_kernel(name_, std::array<const Tensor*, sizeof...(Args)>{tensor_of(args)...}, seconds);
  }

 private:
  static const Tensor* tensor_of(const Tensor& t) { return &t; }
  template <class T>
  static const Tensor* tensor_of(const T&) {
    return nullptr;
  }
  const char* name_;
  Function functions_[3] = {};
};

// Fill every slot of a device; call once at start-up (idempotent). A build without CUDA has an empty second
// one.
void register_cpu_kernels();
void register_cuda_kernels();

}  // namespace nibble::backend

// A tensor: a shape and an element type over (part of) a buffer. Row-major and contiguous; copies are
// shallow. No math here and no device types: kernels read data<T>() and do the rest.
#pragma once
#include <memory>
#include <string_view>

#include "tensor/allocator.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace nibble {

class Tensor {
 public:
  Tensor() = default;
  Tensor(std::shared_ptr<Buffer> buffer, Shape shape, DType dtype, int64_t byte_offset = 0);

  static Tensor empty(Allocator& allocator, const Shape& shape, DType dtype, std::string_view name);
  // A tensor over memory that `owner` keeps alive (null: the caller does).
  static Tensor borrow(const void* data, const Shape& shape, DType dtype, std::shared_ptr<const void> owner);

  bool defined() const { return buffer_ != nullptr; }
  explicit operator bool() const { return defined(); }
  const Shape& shape() const { return shape_; }
  int64_t size(int i) const { return shape_[i]; }
  int64_t numel() const { return shape_.numel(); }
  DType dtype() const { return dtype_; }
  Device device() const { return buffer_ ? buffer_->device : Device::kCpu; }
  int64_t bytes() const { return numel() * dtype_bytes(dtype_); }

  // REQUIRES: T is the C++ type of dtype(). Null on the meta device.
  template <class T>
  T* data() const {
    if (dtype_of<T> != dtype_) [[unlikely]]
      wrong_type(dtype_of<T>);
    return reinterpret_cast<T*>(raw());
  }
  std::byte* raw() const { return buffer_ && buffer_->data ? buffer_->data + offset_ : nullptr; }

  // Views over the same buffer.
  Tensor reshape(const Shape& shape) const;
  Tensor rows(int64_t begin, int64_t end) const;  // along the first dimension

 private:
  [[noreturn]] void wrong_type(DType read_as) const;

  std::shared_ptr<Buffer> buffer_;
  Shape shape_;
  DType dtype_ = kF32;
  int64_t offset_ = 0;
};

}  // namespace nibble

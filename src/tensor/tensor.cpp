#include "tensor/tensor.h"

namespace nibble {

void Tensor::wrong_type(DType read_as) const {
  fail("tensor", "is {} {} but is read as {}", dtype_name(dtype_), shape_, dtype_name(read_as));
}

Tensor::Tensor(std::shared_ptr<Buffer> buffer, Shape shape, DType dtype, int64_t byte_offset)
    : buffer_(std::move(buffer)), shape_(shape), dtype_(dtype), offset_(byte_offset) {
  require(byte_offset >= 0 && byte_offset + bytes() <= static_cast<int64_t>(buffer_->bytes), "tensor",
          "{} {} at byte {} does not fit a buffer of {} bytes", dtype_name(dtype), shape, byte_offset,
          buffer_->bytes);
}

Tensor Tensor::empty(Allocator& allocator, const Shape& shape, DType dtype, std::string_view name) {
  return {allocator.allocate(static_cast<size_t>(shape.numel() * dtype_bytes(dtype)), name), shape, dtype};
}

Tensor Tensor::borrow(const void* data, const Shape& shape, DType dtype, std::shared_ptr<const void> owner) {
  return {borrow_buffer(data, static_cast<size_t>(shape.numel() * dtype_bytes(dtype)), std::move(owner)),
          shape, dtype};
}

Tensor Tensor::reshape(const Shape& shape) const {
  require(shape.numel() == numel(), "tensor", "cannot view {} as {}", shape_, shape);
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  require(shape_.rank() >= 1 && 0 <= begin && begin <= end && end <= shape_[0], "tensor",
          "rows {} to {} of {}", begin, end, shape_);
  Shape shape{end - begin};
  int64_t row = dtype_bytes(dtype_);
  for (int i = 1; i < shape_.rank(); ++i) {
    shape.push_back(shape_[i]);
    row *= shape_[i];
  }
  Tensor t = *this;
  t.shape_ = shape;
  t.offset_ += begin * row;
  return t;
}

}  // namespace nibble

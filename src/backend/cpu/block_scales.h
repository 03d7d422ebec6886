// The scale of each block of a 4-bit weight, read where it lies (mapped files may be unaligned).
#pragma once
#include "quant/parts.h"

namespace nibble::backend::cpu {

class BlockScales {
 public:
  explicit BlockScales(const quant::Weight& w)
      : absmax_(w.absmax.raw()),
        codes_(w.absmax_codes.raw()),
        nested_absmax_(w.nested_absmax.raw()),
        nested_map_(w.nested_map.raw()),
        offset_(w.nested_offset) {}
  float operator[](int64_t i) const {
    if (codes_ == nullptr) return quant::load_at<float>(absmax_, i);
    return quant::load_at<float>(nested_map_, std::to_integer<int64_t>(codes_[i])) * nested_absmax(i) +
           offset_;
  }
  // Of double quantization; null without it. The map may be unaligned.
  const std::byte* codes() const { return codes_; }
  const float* nested_map() const { return reinterpret_cast<const float*>(nested_map_); }
  float nested_absmax(int64_t i) const {
    return quant::load_at<float>(nested_absmax_, static_cast<int64_t>(static_cast<uint64_t>(i) / 256));
  }
  float offset() const { return offset_; }

 private:
  const std::byte *absmax_, *codes_, *nested_absmax_, *nested_map_;
  float offset_;
};

}  // namespace nibble::backend::cpu

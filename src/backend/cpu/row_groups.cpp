#include "backend/cpu/row_groups.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/kernels.h"
#include "base/gguf.h"
#include "base/parallel.h"

namespace nibble::backend {

bool has_rounded_product(const quant::Weight& w) {
  if (w.format->kind != quant::Kind::kGgml || w.shape.rank() != 2 ||
      w.cols() % ggml_block(w.ggml_type).values != 0)
    return false;
  const auto type = static_cast<GgmlType>(w.ggml_type);
  return type == GgmlType::kQ4_0 || type == GgmlType::kQ4_1 || type == GgmlType::kQ8_0 ||
         type == GgmlType::kQ4_K;
}

namespace cpu {
namespace {

int64_t row_bytes(const quant::Weight& w) {
  const GgmlBlock block = ggml_block(w.ggml_type);
  return w.cols() / block.values * block.bytes;
}

}  // namespace

int64_t bytes_of_groups(const quant::Weight& w) {
  const int64_t group = rows_of_group();
  return (w.rows() + group - 1) / group * group * row_bytes(w);
}

void group_rows(Stream& stream, const quant::Weight& w, RowGroups& groups) {
  require(has_rounded_product(w), "group_rows", "rounded_product() has no {} weight {}", w.format->name,
          w.shape);
  const auto type = static_cast<GgmlType>(w.ggml_type);
  const int64_t group = rows_of_group(), block = ggml_block(w.ggml_type).bytes, stride = row_bytes(w),
                blocks = stride / block;
  const int64_t part = type == GgmlType::kQ4_K ? 16 : 2, header = type == GgmlType::kQ4_1 ? 2 * part : part;
  groups.rows = group;
  groups.bytes = Tensor::empty(stream.allocator(), {bytes_of_groups(w)}, kU8, "row_groups");
  const auto* from = reinterpret_cast<const uint8_t*>(w.blocks.raw());
  auto* const all = reinterpret_cast<uint8_t*>(groups.bytes.raw());
  parallel_for((w.rows() + group - 1) / group, 8, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      uint8_t* const to = all + g * group * stride;
      const int64_t rows = std::min(group, w.rows() - g * group);
      if (rows < group) std::memset(to, 0, static_cast<size_t>(group * stride));
      for (int64_t r = 0; r < rows; ++r) {
        const uint8_t* row = from + w.ggml_row(g * group + r) * stride;
        for (int64_t b = 0; b < blocks; ++b, row += block) {
          uint8_t* at = to + b * group * block;
          for (int64_t i = 0; i < header; i += part)
            std::memcpy(at + i * group + r * part, row + i, static_cast<size_t>(part));
          for (int64_t i = header; i < block; i += 4) std::memcpy(at + i * group + r * 4, row + i, 4);
        }
      }
    }
  });
}

}  // namespace cpu
}  // namespace nibble::backend

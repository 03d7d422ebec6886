#include "nn/attention.h"

#include "backend/kernels/elementwise.h"

namespace nibble::nn {
namespace {

// cache[target_rows[t]] = rows[t]; runs of neighbouring rows are copied as one.
void put_rows(Context& cx, const Tensor& rows, const Tensor& target_rows, Tensor& cache) {
  if (target_rows.raw() == nullptr) return;
  const auto* to = target_rows.data<int32_t>();
  const int64_t n = target_rows.numel();
  for (int64_t begin = 0, end; begin < n; begin = end) {
    end = begin + 1;
    while (end < n && to[end] == to[end - 1] + 1) ++end;
    Tensor place = cache.rows(to[begin], to[begin] + (end - begin));
    backend::accumulate(cx.stream(), rows.rows(begin, end), place, false);
  }
}

}  // namespace

Variable SelfAttention::operator()(Context& cx, const Variable& x, const Tensor& cos_sin,
                                   const SequenceInput& input, KvCache* cache, int64_t layer) const {
  const Variable rotated_q = ops::rope(cx, q(cx, x), cos_sin, input.positions, args.head_width);
  Variable keys = ops::rope(cx, k(cx, x), cos_sin, input.positions, args.head_width), values = v(cx, x);
  if (cache != nullptr) {
    auto& k_rows = cache->k[static_cast<size_t>(layer)];
    auto& v_rows = cache->v[static_cast<size_t>(layer)];
    put_rows(cx, keys.value(), cache->target_rows, k_rows);
    put_rows(cx, values.value(), cache->target_rows, v_rows);
    keys = Variable(k_rows);
    values = Variable(v_rows);
  }
  return o(cx, ops::attention(cx, rotated_q, keys, values, input.segments, args));
}

}  // namespace nibble::nn

#include "nn/attention.h"

#include "backend/kernels/elementwise.h"

namespace nibble::nn {
namespace {

// cache[target_rows[t]] = rows[t].
void put_rows(Context& cx, const Tensor& rows, const Tensor& target_rows, Tensor& cache) {
  if (target_rows.raw() != nullptr) backend::scatter_rows(cx.stream(), rows, target_rows, cache);
}

struct Projected {
  Variable queries, keys, values;
};

Projected project(Context& cx, const SelfAttention& a, const Variable& x) {
  if (a.fused == FusedQkv::kNo) {
    const int64_t tokens = x.size(0);
    const ops::LinearArgs layers[] = {a.q.args(cx, tokens), a.k.args(cx, tokens), a.v.args(cx, tokens)};
    const std::vector<Variable> parts = ops::linears(cx, x, layers);
    return {parts[0], parts[1], parts[2]};
  }
  const Variable all = a.qkv(cx, x);
  const int64_t K = a.args.head_width, q = a.args.heads * K, kv = a.args.kv_heads * K;
  if (a.fused == FusedQkv::kByHead) {
    const auto part = [&](int64_t i) {
      return ops::columns(cx, all, {.groups = a.args.heads, .stride = 3 * K, .offset = i * K, .width = K});
    };
    return {part(0), part(1), part(2)};
  }
  const auto part = [&](int64_t begin, int64_t width) {
    return ops::columns(cx, all, {.groups = 1, .stride = q + 2 * kv, .offset = begin, .width = width});
  };
  return {part(0, q), part(q, kv), part(q + kv, kv)};
}

}  // namespace

Variable SelfAttention::operator()(Context& cx, const Variable& x, const Tensor& cos_sin,
                                   const SequenceInput& input, KvCache* cache, int64_t layer,
                                   const Variable& bias) const {
  auto [queries, keys, values] = project(cx, *this, x);
  if (q_norm.defined()) queries = q_norm(cx, queries, args.heads);
  if (k_norm.defined()) keys = k_norm(cx, keys, args.kv_heads);
  if (cos_sin.defined()) {
    queries = ops::rope(cx, queries, cos_sin, input.positions, args.head_width);
    keys = ops::rope(cx, keys, cos_sin, input.positions, args.head_width);
  }
  if (cache != nullptr) {
    auto& k_rows = cache->k[static_cast<size_t>(layer)];
    auto& v_rows = cache->v[static_cast<size_t>(layer)];
    put_rows(cx, keys.value(), cache->target_rows, k_rows);
    put_rows(cx, values.value(), cache->target_rows, v_rows);
    keys = Variable(k_rows);
    values = Variable(v_rows);
  }
  return o(cx, ops::attention(cx, queries, keys, values, input.segments, args, bias));
}

Variable CrossAttention::operator()(Context& cx, const Variable& x, const Variable& source,
                                    const SequenceInput& input, KvCache* cache, int64_t layer) const {
  const Variable queries = q(cx, x);
  Variable keys, values;
  if (source.defined()) {
    keys = k(cx, source);
    values = v(cx, source);
  }
  if (cache != nullptr) {
    auto& k_rows = cache->source_k[static_cast<size_t>(layer)];
    auto& v_rows = cache->source_v[static_cast<size_t>(layer)];
    if (source.defined()) {
      put_rows(cx, keys.value(), cache->source_rows, k_rows);
      put_rows(cx, values.value(), cache->source_rows, v_rows);
    }
    keys = Variable(k_rows);
    values = Variable(v_rows);
  }
  return o(cx, ops::attention(cx, queries, keys, values, input.cross_segments, args));
}

}  // namespace nibble::nn

// Forward attention: keys and values of every segment are packed once, then tiles of query rows run over
// blocks of keys with a running maximum and sum (Dao et al. 2022). One query row against a long cache is done
// row by row instead.
#include "backend/cpu/attention.h"

#include <cmath>
#include <cstring>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/local_buffer.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/attention_scores-inl.h"
#include "backend/cpu/gemm-inl.h"

#ifndef NIBBLE_CPU_ATTENTION_FORWARD
#define NIBBLE_CPU_ATTENTION_FORWARD
namespace nibble::backend::cpu {
struct AttentionForward : AttentionOperands {
  Step step;  // of both products
  // Packed keys and values of one segment and head start at (segment's padded keys before it, head) * width.
  float *keys, *values;
  const Segment* segments;
  const int64_t* offsets;  // padded keys before each segment
};
inline constexpr int64_t kQueryRows = 48;   // of one tile
inline constexpr int64_t kKeyBlock = 256;   // keys per step of the running softmax
inline constexpr int64_t kKeyPadding = 64;  // a multiple of every panel width
}  // namespace nibble::backend::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

int64_t padded_keys(int64_t n) { return (n + kKeyPadding - 1) / kKeyPadding * kKeyPadding; }

float* packed_at(const AttentionForward& f, float* base, int64_t segment, int64_t head, int64_t width) {
  return base +
         (f.offsets[segment] * f.args.kv_heads + head * padded_keys(f.segments[segment].k_count)) * width;
}

// Columns of V come in whole panels.
int64_t padded_width(int64_t width) {
  return (width + gemm_panel_width() - 1) / gemm_panel_width() * gemm_panel_width();
}

template <class T, Step kStep>
void pack_keys(const AttentionForward& f, const AttentionItem& item) {
  const Segment& s = f.segments[item.segment];
  const int64_t K = f.args.head_width, ld = f.args.kv_heads * K, panel = gemm_panel_width();
  const int64_t depth = steps_of<kStep>(K);
  const int64_t from = (s.k_begin + item.begin) * ld + item.head * K;
  float* keys = packed_at(f, f.keys, item.segment, item.head, K);
  for (int64_t j = 0; j < item.count; j += panel)
    pack_panel_transposed_for<kStep>(static_cast<const T*>(f.k) + from + j * ld, ld, K, item.count - j,
                                     keys + (item.begin + j) * depth);
  float* values = packed_at(f, f.values, item.segment, item.head, padded_width(K));
  pack_panels_for<kStep>(static_cast<const T*>(f.v) + from, ld, item.count, K,
                         values + steps_of<kStep>(item.begin) * panel, steps_of<kStep>(s.k_count) * panel);
}

HWY_INLINE void scale_row(float* row, int64_t n, float factor) {
  const hn::ScalableTag<float> d;
  for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR {
    at.store(d, hn::Mul(at.load(d, row), hn::Set(d, factor)), row);
  });
}

template <class T, Step kStep>
void forward_tile(const AttentionForward& f, const AttentionItem& item) {
  const hn::ScalableTag<float> d;
  const Segment& s = f.segments[item.segment];
  const AttentionArgs& a = f.args;
  const int64_t K = a.head_width, H = a.heads, rows = item.count, panel = gemm_panel_width();
  const int64_t kv_head = item.head / (H / a.kv_heads);
  const AdjustScores adjust(a, item.head, f.bias->at(item.head));
  const float* keys = packed_at(f, f.keys, item.segment, kv_head, K);
  const float* values = packed_at(f, f.values, item.segment, kv_head, padded_width(K));
  const int64_t depth = steps_of<kStep>(K), ld_s = kKeyBlock + 16, ld_o = (K + 15) / 16 * 16 + 16;
  float* q = local_buffer(LocalSlot::kA, kQueryRows * K + 4);
  float* scores = local_buffer(LocalSlot::kB, kQueryRows * ld_s);
  float* sums = local_buffer(LocalSlot::kC, kQueryRows * ld_o);
  const int64_t at_q = (s.q_begin + item.begin) * H + item.head;
  for (int64_t i = 0; i < rows; i += kGemmRows)
    pack_rows_for<kStep>(static_cast<const T*>(f.q) + (at_q + i * H) * K, H * K, K,
                         std::min(kGemmRows, rows - i), q + i * depth);
  float high[kQueryRows], total[kQueryRows];
  std::fill_n(high, kQueryRows, -INFINITY);
  std::fill_n(total, kQueryRows, 0.0f);
  std::fill_n(sums, rows * ld_o, 0.0f);
  const int64_t first = s.first_key(item.begin, a), end = s.end_key(item.begin + rows - 1, a);
  for (int64_t k0 = first / kKeyBlock * kKeyBlock; k0 < end; k0 += kKeyBlock) {
    const int64_t count = std::min(kKeyBlock, end - k0);
    gemm_block<RowsOfA::kPacked, kStep>(rows, count, depth, a.scale, q, kGemmRows * depth, keys + k0 * depth,
                                        panel * depth, Put::kSet, scores, ld_s);
    for (int64_t i = 0; i < rows; ++i) {
      float* row = scores + i * ld_s;
      const int64_t from = std::clamp<int64_t>(s.first_key(item.begin + i, a) - k0, 0, count);
      const int64_t to = std::clamp<int64_t>(s.end_key(item.begin + i, a) - k0, 0, count);
      if (from >= to) {
        std::fill_n(row, count + 1, 0.0f);
        continue;
      }
      if (adjust.any()) adjust_row(adjust, row, count, k0 - s.position(item.begin + i));
      const float higher = std::max(high[i], max_of_row(row, from, to));
      if (higher > high[i] && total[i] != 0) {
        const float shrink = std::exp(high[i] - higher);
        total[i] *= shrink;
        scale_row(sums + i * ld_o, K, shrink);
      }
      high[i] = higher;
      total[i] += softmax_row<kStep>(row, count, from, to, higher, operand_over<kStep>(row));
    }
    gemm_block<RowsOfA::kAsStored, kStep>(rows, K, steps_of<kStep>(count), 1.0f, scores, ld_s,
                                          values + steps_of<kStep>(k0) * panel,
                                          steps_of<kStep>(s.k_count) * panel, Put::kAdd, sums, ld_o);
  }
  for (int64_t i = 0; i < rows; ++i) {
    T* o = static_cast<T*>(f.out) + (at_q + i * H) * K;
    const auto inverse = hn::Set(d, total[i] != 0 ? 1.0f / total[i] : 0.0f);
    for_vectors(d, 0, K, [&](const auto& at) HWY_ATTR {
      at.store(d, hn::Mul(at.load(d, sums + i * ld_o), inverse), o);
    });
    f.lse[at_q + i * H] = total[i] != 0 ? high[i] + std::log(total[i]) : 0.0f;
  }
}

void pack_item(const AttentionForward& f, const AttentionItem& item) {
  with_step(f.dtype, f.step, [&](auto type, auto step) { pack_keys<decltype(type), step()>(f, item); });
}
void forward_item(const AttentionForward& f, const AttentionItem& item) {
  with_step(f.dtype, f.step, [&](auto type, auto step) { forward_tile<decltype(type), step()>(f, item); });
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(pack_item);
HWY_EXPORT(forward_item);

void attention(Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
               const Tensor& segments, AttentionArgs args, Tensor& out, Tensor& lse) {
  for (const Tensor* t : {&q, &k, &v, static_cast<const Tensor*>(&out)})
    require(t->dtype() == q.dtype() && (t->dtype() == kF32 || t->dtype() == kBF16), "attention",
            "expected q, k, v and out all f32 or all bf16, got {} beside {}", dtype_name(t->dtype()),
            dtype_name(q.dtype()));
  std::memset(out.raw(), 0, static_cast<size_t>(out.bytes()));
  std::memset(lse.raw(), 0, static_cast<size_t>(lse.bytes()));
  const std::vector<Segment> all = read_segments(segments);
  const auto floats = [&](int64_t n) { return static_cast<size_t>(n) * sizeof(float); };
  DistanceBias by_distance = DistanceBias::over(all, bias, args);
  if (bias)
    by_distance.fill(bias, args.heads,
                     reinterpret_cast<float*>(
                         stream.scratch(Stream::kPartialSlot, floats(args.heads * by_distance.width()))));
  // Packing pays where many rows use what was packed.
  std::vector<Segment> packed, single;
  for (const Segment& s : all) (s.q_count > 4 ? packed : single).push_back(s);
  const AttentionOperands operands{q.raw(),           k.raw(),   v.raw(), out.raw(),
                                   lse.data<float>(), q.dtype(), args,    &by_distance};
  if (!single.empty()) attention_by_rows(operands, single);
  if (packed.empty()) return;
  std::vector<int64_t> offsets;
  int64_t keys = 0;
  for (const Segment& s : packed) {
    offsets.push_back(keys);
    keys += (s.k_count + kKeyPadding - 1) / kKeyPadding * kKeyPadding;
  }
  const int64_t K = args.head_width, value_width = (K + kKeyPadding - 1) / kKeyPadding * kKeyPadding;
  AttentionForward f{operands, attention_step(args), nullptr, nullptr, packed.data(), offsets.data()};
  f.keys = reinterpret_cast<float*>(stream.scratch(Stream::kKernelSlot, floats(keys * args.kv_heads * K)));
  f.values = reinterpret_cast<float*>(
      stream.scratch(Stream::kKernelSlot2, floats(keys * args.kv_heads * value_width)));
  const auto run = [&](const std::vector<AttentionItem>& items, auto function) {
    parallel_for(static_cast<int64_t>(items.size()), 1,
                 [&](int64_t i, int64_t) { function(f, items[static_cast<size_t>(i)]); });
  };
  run(attention_items(packed, args.kv_heads, kKeyPadding, [](const Segment& s) { return s.k_count; }),
      HWY_DYNAMIC_DISPATCH(pack_item));
  run(attention_items(packed, args.heads, kQueryRows, [](const Segment& s) { return s.q_count; }),
      HWY_DYNAMIC_DISPATCH(forward_item));
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE

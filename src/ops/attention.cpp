#include "ops/check.h"
#include "ops/ops.h"

namespace nibble::ops {
namespace {

// Query-key pairs that are scored, over all heads; 0 where the segments are not on the host.
double pairs(const Tensor& segments, const backend::AttentionArgs& args) {
  if (segments.raw() == nullptr || segments.device() != Device::kCpu) return 0;
  const auto* s = segments.data<int32_t>();
  double n = 0;
  for (int64_t i = 0; i < segments.size(0); ++i) {
    const double q = s[4 * i + 1], k = s[4 * i + 3];
    n += args.causal ? q * k - q * (q - 1) / 2 : q * k;
  }
  return n * static_cast<double>(args.heads);
}

void check(const Variable& q, const Variable& k, const Variable& v, const Tensor& segments,
           const backend::AttentionArgs& args, const Variable& bias) {
  const auto [tq, wq] = require_matrix("attention", q.shape());
  const auto [tk, wk] = require_matrix("attention", k.shape());
  require_same_shape("attention", k, v);
  require(args.kv_heads > 0 && args.heads % args.kv_heads == 0, "attention",
          "{} query heads over {} key heads", args.heads, args.kv_heads);
  require(wq == args.heads * args.head_width && wk == args.kv_heads * args.head_width, "attention",
          "q {} and k {} do not hold {} and {} heads of {}", q.shape(), k.shape(), args.heads, args.kv_heads,
          args.head_width);
  require(segments.shape().rank() == 2 && segments.size(1) == 4 && segments.dtype() == kI32, "attention",
          "segments should be i32 [n, 4], got {} {}", dtype_name(segments.dtype()), segments.shape());
  if (bias.defined())
    require(bias.shape().rank() == 2 && bias.dtype() == kF32 && bias.size(1) == args.heads &&
                bias.size(0) >= 4 && args.bias_distance > bias.size(0) / 2,
            "attention",
            "a relative bias {} {} up to distance {} should be f32 [at least 4 buckets, {} heads], with half "
            "of the "
            "buckets below that distance",
            dtype_name(bias.dtype()), bias.shape(), args.bias_distance, args.heads);
  if (segments.raw() == nullptr || segments.device() != Device::kCpu) return;
  const auto* s = segments.data<int32_t>();
  const int64_t keys_per_query =
      args.causal || bias.defined() ? 1 : 0;  // positions are counted from the last key
  for (int64_t i = 0; i < segments.size(0); ++i, s += 4)
    require(s[0] >= 0 && s[1] >= 0 && s[0] + int64_t{s[1]} <= tq && s[2] >= 0 &&
                s[3] >= s[1] * keys_per_query && s[2] + int64_t{s[3]} <= tk,
            "attention", "segment {} = queries {} + {}, keys {} + {} does not fit {} queries and {} keys", i,
            s[0], s[1], s[2], s[3], tq, tk);
}

}  // namespace

Variable attention(Context& cx, const Variable& q, const Variable& k, const Variable& v,
                   const Tensor& segments, const backend::AttentionArgs& args, const Variable& bias) {
  check(q, k, v, segments, args, bias);
  const Tensor table = bias.defined() ? bias.value() : Tensor();
  Tensor y = cx.empty_like(q.value(), "attention.y");
  Tensor lse = cx.empty({q.size(0), args.heads}, kF32, "attention.lse");
  backend::attention(cx.stream(), q.value(), k.value(), v.value(), table, segments, args, y, lse);
  const double flops =
      cx.observer == nullptr ? 0 : 4.0 * static_cast<double>(args.head_width) * pairs(segments, args);
  cx.observe("attention", false, y, flops, 2.0 * static_cast<double>(y.bytes() + k.value().bytes()));

  Variable result = cx.result(y, cx.differentiates({&q, &k, &v, &bias}));
  if (!result.requires_grad()) return result;
  struct Input {
    autograd::Saved value;
    std::shared_ptr<autograd::GradSlot> slot;
  };
  const Input iq{q.save(), q.slot()}, ik{k.save(), k.slot()}, iv{v.save(), v.slot()};
  const auto bias_slot = bias.defined() ? bias.slot() : nullptr;
  cx.tape()->record(
      "attention", result, [iq, ik, iv, table, bias_slot, y, lse, segments, args, flops](Backward& b) {
        Context& c = b.cx();
        Tensor dq = c.empty_like(iq.value.get(), "attention.dq"),
               dk = c.empty_like(ik.value.get(), "attention.dk"),
               dv = c.empty_like(iv.value.get(), "attention.dv");
        auto dbias = b.target(bias_slot, "attention.dbias");
        backend::attention_backward(c.stream(), b.dy(), iq.value.get(), ik.value.get(), iv.value.get(), table,
                                    y, lse, segments, args, dq, dk, dv, dbias.grad, dbias.accumulate);
        if (iq.slot) b.give(iq.slot, dq, "attention.dq");
        if (ik.slot) b.give(ik.slot, dk, "attention.dk");
        if (iv.slot) b.give(iv.slot, dv, "attention.dv");
        b.cost(2.5 * flops, 4.0 * static_cast<double>(dq.bytes() + dk.bytes()));
      });
  return result;
}

}  // namespace nibble::ops

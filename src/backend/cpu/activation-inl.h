// Activations and their slopes on vectors of f32. Products and sums are rounded one by one: the same bytes on
// every instruction set, but for results that become bf16 where the processor multiplies pairs of bf16
// (Step::kPair): their sigmoid is right to 18 bits.
//   relu(z)      = max(z, 0)                                                 slope of 0 at 0, as PyTorch's
//   gelu(z)      = z Φ(z), Φ the normal distribution        (Hendrycks & Gimpel 2016)
//   gelu_tanh(z) = z / (1 + exp(-2 u)), u = √(2/π) (z + 0.044715 z³), which is z/2 (1 + tanh u)
//   silu(z)      = z / (1 + exp(-z))
//   tanh(z)
#include "backend/cpu/exp-inl.h"
#include "backend/cpu/gemm_step.h"
#include "backend/kernels/elementwise.h"

#if defined(NIBBLE_CPU_ACTIVATION_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_CPU_ACTIVATION_INL
#undef NIBBLE_CPU_ACTIVATION_INL
#else
#define NIBBLE_CPU_ACTIVATION_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <Step kStep, class D, class V = hn::Vec<D>>
HWY_INLINE V sigmoid(D d, V z) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (kStep == Step::kPair) {
    // Between the bounds its reciprocal is a normal number; NaN is the second operand and stays.
    const auto most = _mm512_set1_ps(126);
    auto power = _mm512_mul_ps(z.raw, _mm512_set1_ps(-1.44269504f));
    power = _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), most), _mm512_min_ps(most, power));
    const auto x = _mm512_add_ps(short_exp2(power), _mm512_set1_ps(1));
    const auto about = _mm512_rcp14_ps(x);  // and a step of Newton's
    return V{_mm512_mul_ps(about, _mm512_fnmadd_ps(x, about, _mm512_set1_ps(2)))};
  }
#endif
  const auto one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, exp_f32(d, hn::Neg(z))));
}

// tanh within 3 ulp: a series near zero, where 1 - 2 / (e^2x + 1) cancels.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V tanh_f32(D d, V x) {
  const auto one = hn::Set(d, 1.0f), square = hn::Mul(x, x);
  const auto far = hn::Sub(one, hn::Div(hn::Set(d, 2.0f), hn::Add(exp_f32(d, hn::Add(x, x)), one)));
  auto series = hn::Set(d, 2.1869488e-2f);  // 62/2835, -17/315, 2/15, -1/3
  for (const float c : {-5.3968254e-2f, 1.3333333e-1f, -3.3333333e-1f, 1.0f})
    series = hn::Add(hn::Mul(series, square), hn::Set(d, c));
  return hn::IfThenElse(hn::Lt(hn::Abs(x), hn::Set(d, 0.25f)), hn::Mul(x, series), far);
}

// Φ(z), and its density φ(z) in *density. The tail is φ's exponential times a polynomial in t = 1 / (1 + 0.4
// x), x = |z| / √2: least squares on exp(x²) erfc(x) / t over Chebyshev nodes, within 5e-7 of the value.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V normal_distribution(D d, V z, V* density) {
  const auto one = hn::Set(d, 1.0f);
  const auto x = hn::Mul(hn::Abs(z), hn::Set(d, 0.70710678f));
  const auto e = exp_f32(d, hn::Neg(hn::Mul(x, x)));
  const auto t = hn::Div(one, hn::Add(one, hn::Mul(x, hn::Set(d, 0.4f))));
  auto q = hn::Set(d, 0.050203804f);
  for (const float c : {-0.18268172f, 0.16875271f, -0.005349045f, 0.14132251f, 0.16856608f, 0.20784025f,
                        0.22566968f, 0.22567587f})
    q = hn::Add(hn::Mul(q, t), hn::Set(d, c));
  const auto tail = hn::Mul(hn::Mul(hn::Mul(q, t), e), hn::Set(d, 0.5f));
  *density = hn::Mul(e, hn::Set(d, 0.39894228f));
  return hn::IfThenElse(hn::Lt(z, hn::Zero(d)), tail, hn::Sub(one, tail));
}

// f(z), and its slope in *slope.
template <Activation kF, Step kStep = Step::kFloat, class D, class V = hn::Vec<D>>
HWY_INLINE V activate(D d, V z, V* slope) {
  const auto one = hn::Set(d, 1.0f);
  if constexpr (kF == Activation::kRelu) {
    const auto positive = hn::Gt(z, hn::Zero(d));
    *slope = hn::IfThenElseZero(positive, one);
    return hn::IfThenZeroElse(hn::Lt(z, hn::Zero(d)), z);  // NaN stays
  } else if constexpr (kF == Activation::kGelu) {
    V density;
    const auto phi = normal_distribution(d, z, &density);
    *slope = hn::Add(phi, hn::Mul(z, density));
    return hn::Mul(z, phi);
  } else if constexpr (kF == Activation::kGeluTanh) {
    const auto square = hn::Mul(z, z);
    const auto u = hn::Mul(z, hn::Add(hn::Set(d, 1.5957691f), hn::Mul(square, hn::Set(d, 0.071354814f))));
    const auto s = sigmoid<kStep>(d, u), y = hn::Mul(z, s);
    const auto du = hn::Add(hn::Set(d, 1.5957691f), hn::Mul(square, hn::Set(d, 0.21406444f)));
    // Far out s is 1 exactly or y is 0, so the growth of u is multiplied by zero.
    *slope = hn::Add(s, hn::Mul(hn::Mul(y, hn::Sub(one, s)), du));
    return y;
  } else if constexpr (kF == Activation::kTanh) {
    const auto y = tanh_f32(d, z);
    *slope = hn::Sub(one, hn::Mul(y, y));
    return y;
  } else {
    const auto s = sigmoid<kStep>(d, z), y = hn::Mul(z, s);
    *slope = hn::Add(s, hn::Mul(y, hn::Sub(one, s)));
    return y;
  }
}

// f(std::integral_constant<Activation, …>): the activation, turned into a constant once per call.
template <class F>
HWY_INLINE void with_activation(Activation a, F&& f) {
  switch (a) {
    case Activation::kRelu:
      return f(std::integral_constant<Activation, Activation::kRelu>{});
    case Activation::kGelu:
      return f(std::integral_constant<Activation, Activation::kGelu>{});
    case Activation::kGeluTanh:
      return f(std::integral_constant<Activation, Activation::kGeluTanh>{});
    case Activation::kSilu:
      return f(std::integral_constant<Activation, Activation::kSilu>{});
    case Activation::kTanh:
      return f(std::integral_constant<Activation, Activation::kTanh>{});
  }
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard

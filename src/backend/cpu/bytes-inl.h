// Products of bytes: the codes of an int8 weight as they are stored, times rows of A rounded to 8 bits, runs
// of kInt8Run neighbours along k by their largest magnitude. One instruction multiplies and adds four where
// that for bf16 does two. Source: the SwitchBack layer (Wortsman et al. 2023), which rounds whole rows.
//
// What scales a code is constant along k in x · Wᵀ and multiplies the finished sums; in dy · W it goes along
// k and is multiplied into dy before that is rounded. Either way only A is rounded, a value by at most 1/254
// of the largest of its run. A run's sum is exact in 32 bits; sums of runs are f32. A run with a value that
// is not finite gives NaN.
//
// Four neighbours along k stand in the place of a float (k counts such steps, as in gemm-inl.h). The
// instruction wants one side unsigned: A is stored as a + 128, and sums start from -128 Σ codes. A is packed
// by groups: [group][run]{[step][kGemmRows], kGemmRows scales}; B by panels of gemm_panel_width() columns:
// [panel][run]{[step][width], width starts}. Per-target include guard.
#include <algorithm>
#include <bit>
#include <limits>

#include "backend/cpu/gemm-inl.h"
#include "backend/cpu/integers-inl.h"
#include "backend/cpu/matmul.h"

#if defined(NIBBLE_BACKEND_CPU_BYTES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_BACKEND_CPU_BYTES_INL_H
#undef NIBBLE_BACKEND_CPU_BYTES_INL_H
#else
#define NIBBLE_BACKEND_CPU_BYTES_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

constexpr int64_t kByteSteps = kInt8Run / 4;
using ByteSum = hn::Vec<hn::RebindToSigned<GemmTag>>;

// Byte q of every lane.
template <int q>
HWY_INLINE ByteSum signed_byte(ByteSum v) {
  return hn::ShiftRight<24>(hn::ShiftLeft<24 - 8 * q>(v));
}
template <int q>
HWY_INLINE ByteSum unsigned_byte(ByteSum v) {
  return hn::And(hn::ShiftRight<8 * q>(v), hn::Set(hn::RebindToSigned<GemmTag>(), 0xFF));
}

// What the sums of one run of a panel start from, behind the run.
HWY_INLINE void put_starts(const float* run, int64_t steps, float* starts) {
  const GemmTag d;
  const hn::RebindToSigned<GemmTag> i32;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t half = 0; half < 2 * lanes; half += lanes) {
    auto sum = hn::Zero(i32);
    for (int64_t p = 0; p < steps; ++p) {
      const auto v = hn::BitCast(i32, hn::Load(d, run + p * 2 * lanes + half));
      sum = hn::Add(sum, hn::Add(hn::Add(signed_byte<0>(v), signed_byte<1>(v)),
                                 hn::Add(signed_byte<2>(v), signed_byte<3>(v))));
    }
    hn::Store(hn::BitCast(d, hn::Neg(hn::ShiftLeft<7>(sum))), d, starts + half);
  }
}

// One panel from rows of codes of Bᵀ [n, 4k].
HWY_INLINE void pack_bytes_transposed(const int8_t* from, int64_t ld, int64_t k, int64_t columns, float* to) {
  const int64_t width = gemm_panel_width();
  for (int64_t at = 0; at < k; at += kByteSteps) {
    const int64_t steps = std::min(kByteSteps, k - at);
    pack_panel_transposed(reinterpret_cast<const float*>(from) + at, ld / 4, steps, columns, to);
    put_starts(to, steps, to + steps * width);
    to += (steps + 1) * width;
  }
}

// Panels of codes of B [4k, n].
HWY_INLINE void pack_bytes(const int8_t* from, int64_t ld, int64_t k, int64_t columns, float* to) {
  const hn::RebindToUnsigned<GemmTag> d;
  const hn::Rebind<uint8_t, GemmTag> d8;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t width = 2 * lanes, padded = (columns + width - 1) / width * width,
                panel_stride = stored_steps(Step::kByte, k) * width;
  const auto* bytes = reinterpret_cast<const uint8_t*>(from);
  for (int64_t at = 0; at < k; at += kByteSteps) {
    const int64_t steps = std::min(kByteSteps, k - at);
    for (int64_t p = 0; p < steps; ++p, bytes += 4 * ld)
      for (int64_t j = 0; j < padded; j += lanes) {
        auto* o = reinterpret_cast<uint32_t*>(to + j / width * panel_stride + p * width + j % width);
        if (HWY_LIKELY(j + lanes <= columns)) {
          const auto row = [&](int64_t i)
                               HWY_ATTR { return hn::PromoteTo(d, hn::LoadU(d8, bytes + i * ld + j)); };
          hn::Store(hn::Or(hn::Or(row(0), hn::ShiftLeft<8>(row(1))),
                           hn::Or(hn::ShiftLeft<16>(row(2)), hn::ShiftLeft<24>(row(3)))),
                    d, o);
          continue;
        }
        for (int64_t i = j; i < j + lanes; ++i) {
          o[i - j] = 0;
          for (int64_t q = 0; i < columns && q < 4; ++q)
            o[i - j] |= static_cast<uint32_t>(bytes[q * ld + i]) << 8 * q;
        }
      }
    for (int64_t j = 0; j < padded; j += width) {
      float* run = to + j / width * panel_stride;
      put_starts(run, steps, run + steps * width);
    }
    to += (steps + 1) * width;
  }
}

// to[i] ≈ from[i] · factors[i] / result + 128, whole vectors of them; factors may be null.
template <class T>
HWY_INLINE float to_bytes(const T* from, const float* factors, int64_t n, uint8_t* to) {
  const GemmTag d;
  const hn::RebindToSigned<GemmTag> i32;
  const hn::Rebind<int8_t, GemmTag> d8;
  const auto magnitude = hn::Set(i32, 0x7FFFFFFF);
  auto most = hn::Zero(i32);
  const auto each = [&](const auto& body) HWY_ATTR {
    if (factors == nullptr)
      for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR { body(at.i, at.load(d, from)); });
    else
      for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR {
        body(at.i, hn::Mul(at.load(d, from), at.load(d, factors)));
      });
  };
  // As integers magnitudes are in the same order, with what is not finite above the rest.
  each([&](int64_t, auto v) HWY_ATTR { most = hn::Max(most, hn::And(hn::BitCast(i32, v), magnitude)); });
  const auto largest = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(i32, most)));
  const bool finite = largest <= std::numeric_limits<float>::max();
  const auto up = hn::Set(d, finite && largest >= kLeastToScale ? 127 / largest : 0.0f);
  each([&](int64_t i, auto v) HWY_ATTR {
    const auto code = hn::DemoteTo(d8, hn::NearestInt(hn::Mul(v, up)));
    hn::StoreU(hn::Xor(code, hn::Set(d8, int8_t{-128})), d8, reinterpret_cast<int8_t*>(to + i));
  });
  return finite ? largest / 127 : std::numeric_limits<float>::quiet_NaN();
}

// Up to kGemmRows rows of A [m, 4k], times factors [4k] where there are any. Writes up to four values beyond
// the group's end.
template <class T>
HWY_INLINE void pack_byte_rows(const T* from, const float* factors, int64_t ld, int64_t k, int64_t rows,
                               float* to) {
  static_assert(kInt8Run % 16 == 0, "the last vector of a run is stored whole");
  HWY_ALIGN uint8_t bytes[kInt8Run * kGemmRows];
  for (int64_t at = 0; at < k; at += kByteSteps) {
    const int64_t steps = std::min(kByteSteps, k - at);
    float scales[kGemmRows] = {};
    for (int64_t i = 0; i < rows; ++i)
      scales[i] = to_bytes(from + i * ld + 4 * at, factors == nullptr ? nullptr : factors + 4 * at, 4 * steps,
                           bytes + i * kInt8Run);
    pack_rows(reinterpret_cast<const float*>(bytes), kByteSteps, steps, rows, to);
    to = std::copy_n(scales, kGemmRows, to + steps * kGemmRows);
  }
}

// sum + the products of the four unsigned bytes of x with the signed ones of each lane of b.
template <Step kStep>
HWY_INLINE ByteSum byte_step(hn::Vec<GemmTag> x, hn::Vec<GemmTag> b, ByteSum sum) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (kStep == Step::kByte) {
    // Not an intrinsic: this target is compiled for every AVX-512, of which some lack the instruction.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(x.raw), "v"(b.raw));
    return sum;
  }
#endif
  const hn::RebindToSigned<GemmTag> i32;
  const auto u = hn::BitCast(i32, x), s = hn::BitCast(i32, b);
  sum = hn::Add(sum, hn::Mul(unsigned_byte<0>(u), signed_byte<0>(s)));
  sum = hn::Add(sum, hn::Mul(unsigned_byte<1>(u), signed_byte<1>(s)));
  sum = hn::Add(sum, hn::Mul(unsigned_byte<2>(u), signed_byte<2>(s)));
  return hn::Add(sum, hn::Mul(unsigned_byte<3>(u), signed_byte<3>(s)));
}

// total[R, width] += a · panel over one run; both are moved behind it.
template <int R, Step kStep>
HWY_INLINE void byte_run(const float* HWY_RESTRICT& a, const float* HWY_RESTRICT& panel, int64_t steps,
                         float* HWY_RESTRICT total) {
  const GemmTag d;
  const hn::RebindToSigned<GemmTag> i32;
  const size_t lanes = hn::Lanes(d);
  const float* starts = panel + static_cast<size_t>(steps) * 2 * lanes;
  RowsOfSums<ByteSum> t;
  for_rows<R>(t, [&](int64_t, auto& low, auto& high) HWY_ATTR {
    low = hn::BitCast(i32, hn::Load(d, starts));
    high = hn::BitCast(i32, hn::Load(d, starts + lanes));
  });
  for (int64_t p = 0; p < steps; ++p, panel += 2 * lanes, a += kGemmRows) {
    const auto b0 = hn::Load(d, panel), b1 = hn::Load(d, panel + lanes);
    for_rows<R>(t, [&](int64_t i, auto& low, auto& high) HWY_ATTR {
      const auto x = hn::Set(d, a[i]);
      low = byte_step<kStep>(x, b0, low);
      high = byte_step<kStep>(x, b1, high);
    });
  }
  for_rows<R>(t, [&](int64_t i, auto& low, auto& high) HWY_ATTR {
    float* to = total + static_cast<size_t>(i) * 2 * lanes;
    const auto scale = hn::Set(d, a[i]);
    hn::Store(hn::MulAdd(hn::ConvertTo(d, low), scale, hn::Load(d, to)), d, to);
    hn::Store(hn::MulAdd(hn::ConvertTo(d, high), scale, hn::Load(d, to + lanes)), d, to + lanes);
  });
  panel += 2 * lanes;
  a += kGemmRows;
}

#if HWY_TARGET == HWY_AVX3
// The same with every register assigned: GCC would copy each sum around the instruction that adds to it, and
// run out of them.
template <>
HWY_INLINE void byte_run<12, Step::kByte>(const float* HWY_RESTRICT& a, const float* HWY_RESTRICT& panel,
                                          int64_t steps, float* HWY_RESTRICT total) {
  static_assert(kGemmRows == 12);
// clang-format off
#define NIBBLE_EACH_ROW(f)                                                                             \
  f(0, 0, 1, 26) f(1, 2, 3, 27) f(2, 4, 5, 28) f(3, 6, 7, 29) f(4, 8, 9, 30) f(5, 10, 11, 31)          \
  f(6, 12, 13, 26) f(7, 14, 15, 27) f(8, 16, 17, 28) f(9, 18, 19, 29) f(10, 20, 21, 30) f(11, 22, 23, 31)
#define NIBBLE_START(row, low, high, x)      \
  "vmovdqa64 %%zmm24, %%zmm" #low "\n\t"    \
  "vmovdqa64 %%zmm25, %%zmm" #high "\n\t"
#define NIBBLE_STEP(row, low, high, x)                              \
  "vbroadcastss 4*" #row "(%[a]), %%zmm" #x "\n\t"                 \
  "vpdpbusd %%zmm24, %%zmm" #x ", %%zmm" #low "\n\t"               \
  "vpdpbusd %%zmm25, %%zmm" #x ", %%zmm" #high "\n\t"
#define NIBBLE_INCLUDE(row, low, high, x)                                        \
  "vbroadcastss 4*" #row "(%[a]), %%zmm" #x "\n\t"                              \
  "vcvtdq2ps %%zmm" #low ", %%zmm" #low "\n\t"                                  \
  "vcvtdq2ps %%zmm" #high ", %%zmm" #high "\n\t"                                \
  "vfmadd213ps 128*" #row "(%[total]), %%zmm" #x ", %%zmm" #low "\n\t"          \
  "vfmadd213ps 128*" #row "+64(%[total]), %%zmm" #x ", %%zmm" #high "\n\t"      \
  "vmovaps %%zmm" #low ", 128*" #row "(%[total])\n\t"                           \
  "vmovaps %%zmm" #high ", 128*" #row "+64(%[total])\n\t"
  asm volatile("vmovdqa64 (%[starts]), %%zmm24\n\t"
      "vmovdqa64 64(%[starts]), %%zmm25\n\t"
      NIBBLE_EACH_ROW(NIBBLE_START)
      "1:\n\t"
      "vmovdqa64 (%[panel]), %%zmm24\n\t"
      "vmovdqa64 64(%[panel]), %%zmm25\n\t"
      NIBBLE_EACH_ROW(NIBBLE_STEP)
      "add $128, %[panel]\n\t"
      "add $48, %[a]\n\t"
      "dec %[steps]\n\t"
      "jnz 1b\n\t"
      NIBBLE_EACH_ROW(NIBBLE_INCLUDE)
      "add $128, %[panel]\n\t"
      "add $48, %[a]"
      : [a] "+r"(a), [panel] "+r"(panel), [steps] "+r"(steps)
      : [starts] "r"(panel + steps * 32), [total] "r"(total)
      : "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11",
        "zmm12", "zmm13", "zmm14", "zmm15", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22",
        "zmm23", "zmm24", "zmm25", "zmm26", "zmm27", "zmm28", "zmm29", "zmm30", "zmm31", "memory", "cc");
// clang-format on
#undef NIBBLE_EACH_ROW
#undef NIBBLE_START
#undef NIBBLE_STEP
#undef NIBBLE_INCLUDE
}
#endif

// c[R, width] (+)= a · panel · scales of the columns, over k steps.
template <int R, Step kStep>
HWY_NOINLINE void byte_micro(const float* HWY_RESTRICT a, const float* HWY_RESTRICT panel, int64_t k,
                             const float* HWY_RESTRICT scales, Put put, float* HWY_RESTRICT c, int64_t ldc,
                             int64_t columns) {
  static_assert(R <= kGemmRows && R <= 12);
  const GemmTag d;
  const size_t lanes = hn::Lanes(d);
  HWY_ALIGN float total[R * 2 * hn::MaxLanes(d)];
#pragma GCC unroll 24  // GCC would call memset
  for (int i = 0; i < 2 * R; ++i) hn::Store(hn::Zero(d), d, total + static_cast<size_t>(i) * lanes);
  for (int64_t at = 0; at < k; at += kByteSteps)
    byte_run<R, kStep>(a, panel, std::min(kByteSteps, k - at), total);
  const auto s0 = hn::Load(d, scales), s1 = hn::Load(d, scales + lanes);
  for (int i = 0; i < R; ++i, c += ldc) {
    const float* from = total + static_cast<size_t>(i) * 2 * lanes;
    gemm_store(hn::Mul(hn::Load(d, from), s0), hn::Mul(hn::Load(d, from + lanes), s1), 1, put, c, columns);
  }
}

// c[rows, columns] (+)= alpha · a · packed / 127, the columns times absmax unless that is null; `next` floats
// from one group of rows to the next.
template <Step kStep>
HWY_INLINE void byte_block(int64_t rows, int64_t columns, int64_t k, float alpha, const float* absmax,
                           const float* a, int64_t next, const float* packed, int64_t panel_stride, Put put,
                           float* c, int64_t ldc) {
  const GemmTag d;
  const int64_t width = gemm_panel_width();
  HWY_ALIGN float scales[2 * hn::MaxLanes(d)];
  for (int64_t j = 0; j < columns; j += width, packed += panel_stride) {
    for (int64_t i = 0; i < width; ++i)
      scales[i] = (absmax == nullptr ? alpha : i < columns - j ? alpha * absmax[j + i] : 0) / 127;
    for (int64_t i = 0; i < rows;) {
      const float* at = a + i / kGemmRows * next;
      float* to = c + i * ldc + j;
      const int64_t within = i % kGemmRows;
      i += next_rows(rows - i, [&](auto count) HWY_ATTR {
        byte_micro<decltype(count)::value, kStep>(at + within, packed, k, scales, put, to, ldc, columns - j);
      });
    }
  }
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

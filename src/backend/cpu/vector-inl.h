// Vectors of f32 over memory that holds f32 or bf16, for the leaf files that are compiled once per
// instruction set. A rest shorter than a vector goes through a padded one: a value's result never depends on
// where in a row it stands.
#include "backend/cpu/any_floats.h"
#include "backend/cpu/convert-inl.h"

#if defined(NIBBLE_BACKEND_CPU_VECTOR_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_BACKEND_CPU_VECTOR_INL_H
#undef NIBBLE_BACKEND_CPU_VECTOR_INL_H
#else
#define NIBBLE_BACKEND_CPU_VECTOR_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// load_f32 and store_f32 of convert-inl.h for vectors of any width.
template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const float* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const BFloat16* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<uint32_t, D> d32;
  return hn::BitCast(
      d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)))));
}
template <class D>
HWY_INLINE void store_f32(D d, hn::Vec<D> v, float* p) {
  hn::StoreU(v, d, p);
}
template <class D>
HWY_INLINE void store_f32(D, hn::Vec<D> v, BFloat16* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<uint32_t, D> d32;
  const hn::Rebind<int32_t, D> s32;
  const auto bits = bf16_bits(d32, hn::BitCast(d32, v));
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(s32, bits)), d16, reinterpret_cast<uint16_t*>(p));
}

template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, AnyFloats p) {
  return p.narrow ? load_f32(d, p.bf16()) : load_f32(d, p.f32());
}
template <class D>
HWY_INLINE void store_f32(D d, hn::Vec<D> v, AnyFloats p) {
  if (p.narrow) return store_f32(d, v, p.bf16());
  store_f32(d, v, p.f32());
}

// The first n < lanes values; zeros (or `rest`) after them.
template <class D, class T>
HWY_INLINE hn::Vec<D> load_part(D d, const T* p, size_t n, T rest = T{}) {
  T padded[hn::MaxLanes(d)];
  for (size_t i = 0; i < hn::Lanes(d); ++i) padded[i] = i < n ? p[i] : rest;
  return load_f32(d, padded);
}
template <class D, class T>
HWY_INLINE void store_part(D d, hn::Vec<D> v, T* p, size_t n) {
  T padded[hn::MaxLanes(d)];
  store_f32(d, v, padded);
  for (size_t i = 0; i < n; ++i) p[i] = padded[i];
}

template <class D>
HWY_INLINE hn::Vec<D> load_part(D d, AnyFloats p, size_t n) {
  return p.narrow ? load_part(d, p.bf16(), n) : load_part(d, p.f32(), n);
}
template <class D>
HWY_INLINE void store_part(D d, hn::Vec<D> v, AnyFloats p, size_t n) {
  if (p.narrow) return store_part(d, v, p.bf16(), n);
  store_part(d, v, p.f32(), n);
}

// Whole vectors and then the rest of [0, n): body(i, load, store) where load(p) reads f32 from p + i and
// store(v, p) writes to p + i, whatever p's type is. Lanes beyond the rest read as zero, or as what load_or
// is given.
struct WholeVector {
  int64_t i;
  template <class D, class P>
  HWY_INLINE hn::Vec<D> load(D d, P p) const {
    return load_f32(d, p + i);
  }
  template <class D>
  HWY_INLINE hn::Vec<D> load_or(D d, const float* p, float) const {
    return load_f32(d, p + i);
  }
  template <class D, class P>
  HWY_INLINE void store(D d, hn::Vec<D> v, P p) const {
    store_f32(d, v, p + i);
  }
};
struct PartVector {
  int64_t i;
  size_t n;
  template <class D, class P>
  HWY_INLINE hn::Vec<D> load(D d, P p) const {
    return load_part(d, p + i, n);
  }
  template <class D>
  HWY_INLINE hn::Vec<D> load_or(D d, const float* p, float rest) const {
    return load_part(d, p + i, n, rest);
  }
  template <class D, class P>
  HWY_INLINE void store(D d, hn::Vec<D> v, P p) const {
    store_part(d, v, p + i, n);
  }
};
template <class D, class Body>
HWY_INLINE void for_vectors(D d, int64_t begin, int64_t end, const Body& body) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) body(WholeVector{i});
  if (i < end) body(PartVector{i, static_cast<size_t>(end - i)});
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

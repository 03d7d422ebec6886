#include <cmath>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "base/parallel.h"

namespace nibble::backend::cpu {
namespace {
constexpr int64_t kGrain = 1 << 14;
}

void swiglu(Stream&, const Tensor& gate, const Tensor& up, Tensor& out) {
  with_float(gate.dtype(), "swiglu", [&](auto tg) {
    with_float(up.dtype(), "swiglu", [&](auto tu) {
      with_float(out.dtype(), "swiglu", [&](auto to) {
        const auto* pg = gate.data<typename decltype(tg)::type>();
        const auto* pu = up.data<typename decltype(tu)::type>();
        auto* po = out.data<typename decltype(to)::type>();
        parallel_for(gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const float z = to_float(pg[i]);
            from_float(z / (1.0f + std::exp(-z)) * to_float(pu[i]), po[i]);
          }
        });
      });
    });
  });
}

void swiglu_backward(Stream&, const Tensor& dy, const Tensor& gate, const Tensor& up, Tensor& dgate, bool accumulate_gate,
                     Tensor& dup, bool accumulate_up) {
  const DType tdg = dgate ? dgate.dtype() : kF32, tdu = dup ? dup.dtype() : kF32;
  with_float(dy.dtype(), "swiglu_backward", [&](auto ty) {
    with_float(gate.dtype(), "swiglu_backward", [&](auto tg) {
      with_float(up.dtype(), "swiglu_backward", [&](auto tu) {
        with_float(tdg, "swiglu_backward", [&](auto tdgate) {
          with_float(tdu, "swiglu_backward", [&](auto tdup) {
            const auto* py = dy.data<typename decltype(ty)::type>();
            const auto* pg = gate.data<typename decltype(tg)::type>();
            const auto* pu = up.data<typename decltype(tu)::type>();
            auto* pdg = dgate ? dgate.data<typename decltype(tdgate)::type>() : nullptr;
            auto* pdu = dup ? dup.data<typename decltype(tdup)::type>() : nullptr;
            parallel_for(gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const float z = to_float(pg[i]), u = to_float(pu[i]), d = to_float(py[i]);
                const float s = 1.0f / (1.0f + std::exp(-z)), silu = z * s;
                const float dg = d * u * (s + silu * (1.0f - s)), du = d * silu;
                if (pdg) from_float(accumulate_gate ? to_float(pdg[i]) + dg : dg, pdg[i]);
                if (pdu) from_float(accumulate_up ? to_float(pdu[i]) + du : du, pdu[i]);
              }
            });
          });
        });
      });
    });
  });
}

}  // namespace nibble::backend::cpu

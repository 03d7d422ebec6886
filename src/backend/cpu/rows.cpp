#include <algorithm>
#include <cassert>
#include <type_traits>
#include <vector>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "base/parallel.h"

namespace nibble::backend::cpu {
namespace {
constexpr int64_t kRows = 32;

// body(first value of x, first value of out, values of a row, rows[r], r) for each r, in C++ types.
template <class Body>
void over_rows(const char* op, const Tensor& x, const Tensor& rows, Tensor& out, const Body& body) {
  const int64_t n = x.shape().last();
  const int32_t* index = rows.data<int32_t>();
  with_float(x.dtype(), op, [&](auto tx) {
    with_float(out.dtype(), op, [&](auto to) {
      const auto* px = x.data<typename decltype(tx)::type>();
      auto* po = out.data<typename decltype(to)::type>();
      parallel_for(rows.numel(), kRows, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) body(px, po, n, int64_t{index[r]}, r);
      });
    });
  });
}

template <class X, class Out>
void copy_row(const X* from, int64_t n, Out* to) {
  if constexpr (std::is_same_v<X, Out>)
    std::copy_n(from, n, to);
  else
    for (int64_t i = 0; i < n; ++i) from_float(to_float(from[i]), to[i]);
}

}  // namespace

void gather_rows(Stream&, const Tensor& x, const Tensor& rows, Tensor& out) {
  over_rows("gather_rows", x, rows, out, [](const auto* px, auto* po, int64_t n, int64_t row, int64_t r) {
    copy_row(px + row * n, n, po + r * n);
  });
}

void scatter_rows(Stream&, const Tensor& x, const Tensor& rows, Tensor& out) {
  over_rows("scatter_rows", x, rows, out, [](const auto* px, auto* po, int64_t n, int64_t row, int64_t r) {
    copy_row(px + r * n, n, po + row * n);
  });
}

void scatter_add_rows(Stream&, const Tensor& x, const Tensor& rows, Tensor& out) {
  over_rows("scatter_add_rows", x, rows, out,
            [](const auto* px, auto* po, int64_t n, int64_t row, int64_t r) {
              auto* to = po + row * n;
              for (int64_t i = 0; i < n; ++i) from_float(to_float(to[i]) + to_float(px[r * n + i]), to[i]);
            });
}

void take_columns(Stream&, const Tensor& x, Columns columns, Tensor& part) {
  const auto [groups, stride, offset, width] = columns;
  const int64_t n = x.shape().last();
  with_float(x.dtype(), "take_columns",
             [&, groups = groups, stride = stride, offset = offset, width = width](auto tx) {
               with_float(part.dtype(), "take_columns", [&](auto to) {
                 const auto* px = x.data<typename decltype(tx)::type>();
                 auto* po = part.data<typename decltype(to)::type>();
                 parallel_for(x.shape().rows(), kRows, [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t)
                     for (int64_t g = 0; g < groups; ++g) {
                       const auto* from = px + t * n + g * stride + offset;
                       auto* row = po + (t * groups + g) * width;
                       for (int64_t i = 0; i < width; ++i) from_float(to_float(from[i]), row[i]);
                     }
                 });
               });
             });
}

void add_columns(Stream&, const Tensor& part, Columns columns, Tensor& x) {
  const auto [groups, stride, offset, width] = columns;
  const int64_t n = x.shape().last();
  with_float(part.dtype(), "add_columns",
             [&, groups = groups, stride = stride, offset = offset, width = width](auto tp) {
               with_float(x.dtype(), "add_columns", [&](auto tx) {
                 const auto* pp = part.data<typename decltype(tp)::type>();
                 auto* px = x.data<typename decltype(tx)::type>();
                 parallel_for(x.shape().rows(), kRows, [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end; ++t)
                     for (int64_t g = 0; g < groups; ++g) {
                       auto* row = px + t * n + g * stride + offset;
                       const auto* from = pp + (t * groups + g) * width;
                       for (int64_t i = 0; i < width; ++i)
                         from_float(to_float(row[i]) + to_float(from[i]), row[i]);
                     }
                 });
               });
             });
}

void embedding(Stream&, const Tensor& ids, const quant::Weight& w, Tensor& out) {
  const int64_t n = w.cols();
  const int32_t* index = ids.data<int32_t>();
  with_float(out.dtype(), "embedding", [&](auto to) {
    auto* po = out.data<typename decltype(to)::type>();
    parallel_for(ids.numel(), kRows, [&](int64_t begin, int64_t end) {
      std::vector<float> row(static_cast<size_t>(n));
      for (int64_t t = begin; t < end; ++t) {
        assert(index[t] >= 0 && index[t] < w.rows());
        quant::decode_rows(w, index[t], index[t] + 1, row.data());
        for (int64_t i = 0; i < n; ++i) from_float(row[static_cast<size_t>(i)], po[t * n + i]);
      }
    });
  });
}

void embedding_backward(Stream&, const Tensor& dy, const Tensor& ids, Tensor& dw) {
  const int64_t n = dw.shape().last(), tokens = ids.numel();
  const int32_t* index = ids.data<int32_t>();
  float* pw = dw.data<float>();
  // Columns are divided, not tokens, so that tokens with the same id add up in their order.
  with_float(dy.dtype(), "embedding_backward", [&](auto ty) {
    const auto* py = dy.data<typename decltype(ty)::type>();
    parallel_for(n, 64, [&](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t i = begin; i < end; ++i) pw[index[t] * n + i] += to_float(py[t * n + i]);
    });
  });
}

}  // namespace nibble::backend::cpu

// Norm, rotary embedding, embedding and cross-entropy.
#include "tests/backend/kernel_cases.h"

namespace nibble::backend {
namespace {

Tensor indices(const std::vector<int32_t>& v) {
  Tensor t = Tensor::empty(host_allocator(), {static_cast<int64_t>(v.size())}, kI32, "indices");
  std::copy(v.begin(), v.end(), t.data<int32_t>());
  return t;
}

TEST(RmsNorm, FollowsItsFormula) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const int64_t rows : {0, 1, 5, 130})
      for (const int64_t n : {1, 3, 8, 17, 64, 100})
        for (const DType tx : kFloats)
          for (const DType tw : kFloats) {
            SCOPED_TRACE(fmt::format("{} x {}, {} {}", rows, n, dtype_name(tx), dtype_name(tw)));
            const Tensor x = random_tensor({rows, n}, tx, 1), w = random_tensor({n}, tw, 2),
                         dy = random_tensor({rows, n}, tx, 3);
            const float offset = rows == 5 ? 1 : 0;
            auto fw = doubles_of(w);
            const auto fx = doubles_of(x), fd = doubles_of(dy);
            for (double& v : fw) v += static_cast<double>(offset);
            Guarded y = guarded({rows, n}, tx, 4), rstd = guarded({rows}, kF32, 5),
                    dx = guarded({rows, n}, kF32, 6), dw = guarded({n}, kF32, 7);
            const auto nz = static_cast<size_t>(n);
            auto want_dx = doubles_of(dx.tensor), want_dw = doubles_of(dw.tensor);
            std::vector<double> want_y(fx.size());
            for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
              double mean = 0, dot = 0;
              for (size_t i = 0; i < nz; ++i)
                mean += fx[r * nz + i] * fx[r * nz + i] / static_cast<double>(n);
              const double s = 1 / std::sqrt(mean + 1e-2);
              for (size_t i = 0; i < nz; ++i) dot += fd[r * nz + i] * fw[i] * fx[r * nz + i];
              for (size_t i = 0; i < nz; ++i) {
                want_y[r * nz + i] = fx[r * nz + i] * s * fw[i];
                want_dx[r * nz + i] +=
                    s * (fd[r * nz + i] * fw[i] - fx[r * nz + i] * s * s * dot / static_cast<double>(n));
                want_dw[i] += fd[r * nz + i] * fx[r * nz + i] * s;
              }
            }
            rms_norm(stream, x, w, 1e-2f, offset, y.tensor, rstd.tensor);
            rms_norm_backward(stream, dy, x, w, offset, rstd.tensor, dx.tensor, true, dw.tensor, true);
            for (const Guarded* g : {&y, &rstd, &dx, &dw}) g->expect_untouched("rms_norm");
            expect_near(y.tensor, want_y, 2e-6, "y");
            expect_near(dx.tensor, want_dx, 2e-5, "dx");
            expect_near(dw.tensor, want_dw, 2e-6, "dw");
            Guarded fresh = guarded({rows, n}, tx, 8);
            Tensor none;
            rms_norm_backward(stream, dy, x, w, offset, rstd.tensor, fresh.tensor, false, none, false);
            const auto old = floats_of(guarded({rows, n}, kF32, 6).tensor);
            for (size_t i = 0; i < want_dx.size(); ++i) want_dx[i] -= old[i];
            expect_near(fresh.tensor, want_dx, 2e-5, "dx, written");
          }
  });
}

TEST(RmsNorm, SameBytesForAnyThreads) {
  Stream stream(host_allocator());
  const Tensor x = random_tensor({1000, 65}, kBF16, 1), w = random_tensor({65}, kF32, 2),
               dy = random_tensor({1000, 65}, kBF16, 3);
  expect_same(Same::kThreads, [&] {
    Tensor y = Tensor::empty(host_allocator(), {1000, 65}, kBF16, "y"),
           rstd = Tensor::empty(host_allocator(), {1000}, kF32, "r");
    Tensor dw = Tensor::empty(host_allocator(), {65}, kF32, "dw");
    rms_norm(stream, x, w, 1e-5f, 0, y, rstd);
    std::string all = bytes_of(y);
    rms_norm_backward(stream, dy, x, w, 0, rstd, y, false, dw, false);
    return all + bytes_of(y) + bytes_of(dw);
  });
}

TEST(LayerNorm, FollowsItsFormula) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const int64_t rows : {0, 1, 5, 130})
      for (const int64_t n : {1, 3, 8, 17, 64, 100})
        for (const DType tx : kFloats) {
          SCOPED_TRACE(fmt::format("{} x {}, {}", rows, n, dtype_name(tx)));
          // Far from zero: the variance must come from distances to the mean.
          Tensor x = random_tensor({rows, n}, tx, 1);
          if (tx == kF32)
            for (int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] += 30;
          const Tensor w = random_tensor({n}, kF32, 2), b = random_tensor({n}, kF32, 9),
                       dy = random_tensor({rows, n}, tx, 3);
          const auto fx = doubles_of(x), fw = doubles_of(w), fb = doubles_of(b), fd = doubles_of(dy);
          Guarded y = guarded({rows, n}, tx, 4), mean = guarded({rows}, kF32, 5),
                  rstd = guarded({rows}, kF32, 5), dx = guarded({rows, n}, kF32, 6),
                  dw = guarded({n}, kF32, 7), db = guarded({n}, kF32, 8);
          const auto nz = static_cast<size_t>(n);
          const double nd = static_cast<double>(n);
          auto want_dx = doubles_of(dx.tensor), want_dw = doubles_of(dw.tensor),
               want_db = doubles_of(db.tensor);
          std::vector<double> want_y(fx.size());
          for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
            double m = 0, variance = 0, g = 0, gx = 0;
            for (size_t i = 0; i < nz; ++i) m += fx[r * nz + i] / nd;
            for (size_t i = 0; i < nz; ++i) variance += std::pow(fx[r * nz + i] - m, 2) / nd;
            const double s = 1 / std::sqrt(variance + 1e-2);
            for (size_t i = 0; i < nz; ++i) {
              g += fd[r * nz + i] * fw[i] / nd;
              gx += fd[r * nz + i] * fw[i] * (fx[r * nz + i] - m) * s / nd;
            }
            for (size_t i = 0; i < nz; ++i) {
              const double normal = (fx[r * nz + i] - m) * s;
              want_y[r * nz + i] = normal * fw[i] + fb[i];
              want_dx[r * nz + i] += s * (fd[r * nz + i] * fw[i] - g - normal * gx);
              want_dw[i] += fd[r * nz + i] * normal;
              want_db[i] += fd[r * nz + i];
            }
          }
          layer_norm(stream, x, w, b, 1e-2f, y.tensor, mean.tensor, rstd.tensor);
          layer_norm_backward(stream, dy, x, w, mean.tensor, rstd.tensor, dx.tensor, true, dw.tensor, true,
                              db.tensor, true);
          for (const Guarded* t : {&y, &mean, &rstd, &dx, &dw, &db}) t->expect_untouched("layer_norm");
          expect_near(y.tensor, want_y, 1e-5, "y");  // 30 has an ulp of 2e-6
          expect_near(dx.tensor, want_dx, 1e-4, "dx");
          expect_near(dw.tensor, want_dw, 1e-5, "dw");
          expect_near(db.tensor, want_db, 2e-6, "db");
          Guarded fresh = guarded({rows, n}, tx, 8), db_alone = guarded({n}, kF32, 8);
          Tensor none;
          layer_norm_backward(stream, dy, x, w, mean.tensor, rstd.tensor, fresh.tensor, false, none, false,
                              db_alone.tensor, true);
          EXPECT_EQ(bytes_of(db_alone.tensor), bytes_of(db.tensor));
        }
  });
}

TEST(Rope, TurnsPairsAndBack) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const auto& [width, n] :
         {std::pair<int64_t, int64_t>{2, 2}, {6, 4}, {16, 16}, {18, 18}, {64, 64}, {40, 10}})
      for (const DType tx : kFloats)
        for (const DType to : kFloats) {
          const std::vector<int32_t> positions = {0, 3, 3, 1, 6};
          const Tensor x = random_tensor({5, 3 * width}, tx, 1), table = random_tensor({7, n}, kF32, 2);
          const auto fx = doubles_of(x), ft = doubles_of(table);
          for (const int direction : {1, -1}) {
            Guarded out = guarded({5, 3 * width}, to, 3);
            rope(stream, x, table, indices(positions), width, direction, out.tensor);
            out.expect_untouched("rope");
            std::vector<double> want = fx;
            for (int64_t t = 0; t < 5; ++t)
              for (int64_t h = 0; h < 3; ++h)
                for (int64_t i = 0; i < n / 2; ++i) {
                  const auto a = static_cast<size_t>((t * 3 + h) * width + i),
                             b = a + static_cast<size_t>(n / 2);
                  const double c = ft[static_cast<size_t>(positions[static_cast<size_t>(t)] * n + i)];
                  const double s =
                      direction * ft[static_cast<size_t>(positions[static_cast<size_t>(t)] * n + n / 2 + i)];
                  want[a] = fx[a] * c - fx[b] * s;
                  want[b] = fx[b] * c + fx[a] * s;
                }
            expect_near(out.tensor, want, 1e-6, "rope");
            if (tx != to) continue;
            Guarded in_place = guarded(x);
            rope(stream, in_place.tensor, table, indices(positions), width, direction, in_place.tensor);
            EXPECT_EQ(bytes_of(in_place.tensor), bytes_of(out.tensor));
          }
        }
  });
}

TEST(Embedding, RowsOfEveryFormatAndTheirGradient) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const auto& [name, w] : every_weight(8, 256)) {
      std::vector<float> values(8 * 256);
      quant::decode_rows(w, 0, 8, values.data());
      for (const DType t : kFloats) {
        Guarded out({3, 256}, t);
        embedding(stream, indices({7, 0, 7}), w, out.tensor);
        out.expect_untouched(name);
        std::vector<float> want;
        for (const size_t id : {7, 0, 7})
          want.insert(want.end(), values.begin() + static_cast<long>(id) * 256,
                      values.begin() + static_cast<long>(id + 1) * 256);
        EXPECT_EQ(bytes_of(out.tensor), bytes_of(tensor_of(want, {3, 256}, t))) << name;
      }
    }
  });
  const Tensor dy = random_tensor({4, 70}, kBF16, 1);
  expect_same(Same::kEverywhere, [&] {
    Guarded dw = guarded({5, 70}, kF32, 2);
    auto want = floats_of(dw.tensor);
    const std::vector<int32_t> ids = {4, 1, 4, 4};
    for (size_t t = 0; t < 4; ++t)
      for (size_t i = 0; i < 70; ++i) want[static_cast<size_t>(ids[t]) * 70 + i] += floats_of(dy)[t * 70 + i];
    embedding_backward(stream, dy, indices(ids), dw.tensor);
    dw.expect_untouched("embedding_backward");
    EXPECT_EQ(bytes_of(dw.tensor), bytes_of(tensor_of(want, {5, 70}, kF32)));
    return bytes_of(dw.tensor);
  });
}

TEST(CrossEntropy, LossAndGradient) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const int64_t vocabulary : {1, 2, 7, 8, 9, 33, 5000})
      for (const bool gradient : {true, false}) {
        const int64_t n = 5;
        Guarded logits = guarded({n, vocabulary}, kF32, 1), losses = guarded({n}, kF32, 2);
        const auto x = doubles_of(logits.tensor);
        const auto v = static_cast<size_t>(vocabulary);
        std::vector<int32_t> labels = {0, -1, static_cast<int32_t>(vocabulary - 1),
                                       static_cast<int32_t>(vocabulary / 2), -1};
        std::vector<double> want(x), loss(5);
        for (size_t r = 0; r < 5; ++r) {
          double sum = 0;
          for (size_t i = 0; i < v; ++i) sum += std::exp(x[r * v + i]);
          if (labels[r] >= 0) loss[r] = std::log(sum) - x[r * v + static_cast<size_t>(labels[r])];
          for (size_t i = 0; i < v && gradient; ++i)
            want[r * v + i] =
                labels[r] < 0
                    ? 0
                    : 0.5 * (std::exp(x[r * v + i]) / sum - (static_cast<int32_t>(i) == labels[r] ? 1 : 0));
        }
        cross_entropy(stream, logits.tensor, indices(labels), 0.5f,
                      gradient ? LossGradient::kF32 : LossGradient::kNone, losses.tensor);
        logits.expect_untouched("logits");
        losses.expect_untouched("losses");
        expect_near(losses.tensor, loss, 1e-6, "loss");
        expect_near(logits.tensor, want, 1e-6, "gradient");
      }
  });
}

// The second half of each row is free; a rest of a vector and a label at either end are where it might fail.
TEST(CrossEntropy, AGradientOfBf16IsTheOtherRounded) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const int64_t vocabulary : {1, 2, 7, 16, 33, 5000}) {
      const std::vector<int32_t> labels = {0, -1, static_cast<int32_t>(vocabulary - 1)};
      const Tensor scores = random_tensor({3, vocabulary}, kF32, 1);
      Guarded wide = guarded(scores), narrow = guarded(scores);
      Tensor losses = Tensor::empty(host_allocator(), {3}, kF32, "losses"),
             same = Tensor::empty(host_allocator(), {3}, kF32, "losses");
      cross_entropy(stream, wide.tensor, indices(labels), 0.5f, LossGradient::kF32, losses);
      cross_entropy(stream, narrow.tensor, indices(labels), 0.5f, LossGradient::kBF16, same);
      narrow.expect_untouched("gradient of bf16");
      EXPECT_EQ(bytes_of(losses), bytes_of(same));
      for (int64_t r = 0; r < 3; ++r) {
        const float* want = wide.tensor.data<float>() + r * vocabulary;
        const auto* got = reinterpret_cast<const BFloat16*>(narrow.tensor.data<float>() + r * vocabulary);
        for (int64_t i = 0; i < vocabulary; ++i)
          ASSERT_EQ(to_float(got[i]), to_float(to_bf16(want[i]))) << "row " << r << ", column " << i;
      }
    }
  });
}

TEST(CrossEntropy, LargeScoresAndNan) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  Tensor logits = tensor_of({1000, -1000, 0, 1, std::nanf(""), 2}, {2, 3}, kF32),
         losses = Tensor::empty(host_allocator(), {2}, kF32, "losses");
  cross_entropy(stream, logits, indices({1, 0}), 1.0f, LossGradient::kF32, losses);
  EXPECT_EQ(losses.data<float>()[0], 2000.0f);
  EXPECT_EQ(logits.data<float>()[0], 1.0f);
  EXPECT_EQ(logits.data<float>()[1], -1.0f);
  EXPECT_TRUE(std::isnan(losses.data<float>()[1]));
  // Lanes beyond a short row are no scores of zero.
  Tensor low = tensor_of({-1000, -1001, -1002}, {1, 3}, kF32),
         loss = Tensor::empty(host_allocator(), {1}, kF32, "loss");
  cross_entropy(stream, low, indices({0}), 1.0f, LossGradient::kNone, loss);
  EXPECT_NEAR(loss.data<float>()[0], std::log(1 + std::exp(-1.0) + std::exp(-2.0)), 1e-6);
}

TEST(CrossEntropy, SameBytesForAnyThreads) {
  Stream stream(host_allocator());
  expect_same(Same::kThreads, [&] {
    Tensor logits = random_tensor({37, 1001}, kF32, 1),
           losses = Tensor::empty(host_allocator(), {37}, kF32, "losses");
    std::vector<int32_t> labels(37);
    for (size_t i = 0; i < 37; ++i) labels[i] = static_cast<int32_t>(i * 27) - 1;
    cross_entropy(stream, logits, indices(labels), 1.0f, LossGradient::kF32, losses);
    return bytes_of(logits) + bytes_of(losses);
  });
}

}  // namespace
}  // namespace nibble::backend

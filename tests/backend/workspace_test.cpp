// What the plan says of kernels' memory against what they keep: of the stream's scratch, and of one thread.
#include "backend/kernels/workspace.h"

#include <thread>

#include "backend/cpu/local_buffer.h"
#include "backend/cpu/matmul.h"
#include "tests/backend/matmul_cases.h"

namespace nibble::backend {
namespace {

void expect_kept(const Workspace& planned, const std::function<void(Stream&)>& run) {
  const auto allocator = make_host_allocator();
  cpu::LocalCounts kept{};
  std::thread fresh([&] {
    Stream stream(*allocator);
    run(stream);
    for (size_t i = 0; i < kept.size(); ++i) kept[i] = 4 * cpu::local_pieces()[i].count;
  });
  fresh.join();
  const int64_t scratch = allocator->ledger().names_peak()[{"scratch", "scratch"}];
  EXPECT_LE(scratch, planned.bytes() + 3 * 64);
  EXPECT_GE(scratch, planned.bytes() * 9 / 10);
  int64_t sum = 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    EXPECT_LE(kept[i], planned.local[i]) << "slot " << i;
    sum += kept[i];
  }
  EXPECT_GE(sum, planned.thread_bytes() * 7 / 10);
}

void check(const ProductWorkspace& p) {
  SCOPED_TRACE(fmt::format("{} x {} x {} with {}, {} {} -> {}, fixed point {}", p.m, p.n, p.k, p.r,
                           dtype_name(p.a), dtype_name(p.b), dtype_name(p.c),
                           static_cast<int>(p.fixed_point)));
  expect_kept(cpu_matmul_workspace(p), [&](Stream& stream) {
    const bool bytes = p.fixed_point == FixedPoint::kByte;
    const Int8Weight codes(p.k, p.n);
    const Tensor a = random_tensor({p.m, p.k}, p.a, 1),
                 b = bytes ? codes.codes : random_tensor({p.k, p.n}, p.b, 2);
    const Tensor* absmax = bytes ? &codes.absmax : nullptr;
    Tensor c = Tensor::empty(host_allocator(), {p.m, p.n}, p.c, "c");
    if (p.r > 0) {
      const Tensor down = random_tensor({p.k, p.r}, p.b, 3), up = random_tensor({p.r, p.n}, p.b, 4);
      Tensor t = Tensor::empty(host_allocator(), {p.m, p.r}, p.c, "t");
      low_rank_matmul(stream, a, b, down, up, t, c, {.fixed_point = p.fixed_point, .absmax = absmax});
    } else {
      matmul(stream, a, b, c, {.fixed_point = p.fixed_point, .absmax = absmax});
    }
    const int64_t few = std::min(p.m, cpu::kFewRows);
    Tensor rest = c.rows(0, few);
    matmul(stream, a.rows(0, few), b, rest, {.fixed_point = p.fixed_point, .absmax = absmax});
  });
}

TEST(Workspace, IsWhatProductsKeep) {
  set_threads(1);
  on_every_target([] {
    for (const FixedPoint fixed : {FixedPoint::kNone, FixedPoint::kShort, FixedPoint::kByte}) {
      check({200, 576, 1536, kBF16, kBF16, kBF16, fixed, 16});
      check({200, 1536, 576, kBF16, kBF16, kF32, fixed});
      check({128, 576, 8192, kF32, kBF16, kBF16, fixed});  // in slabs
      check({40, 576, 8192, kF32, kBF16, kBF16, fixed});
    }
    check({200, 576, 1536, kF32, kF32, kF32, FixedPoint::kNone, 16});
    check({128, 576, 8192, kF32, kF32, kF32});
  });
  set_threads(0);
}

TEST(Workspace, IsWhatThinGradientsKeep) {
  set_threads(1);
  on_every_target([] {
    expect_kept(cpu_thin_gradient_workspace(24, 600), [](Stream& stream) {
      const Tensor s = random_tensor({600, 24}, kF32, 1), x = random_tensor({600, 200}, kF32, 2);
      Tensor g = Tensor::empty(host_allocator(), {24, 200}, kF32, "g");
      thin_gradient(stream, s, x, g, {});
    });
  });
  set_threads(0);
}

TEST(Workspace, IsWhatAttentionKeeps) {
  set_threads(1);
  const AttentionArgs args{.heads = 4, .kv_heads = 2, .head_width = 64};
  on_every_target([&] {
    for (const DType type : kFloats)
      for (const int64_t buckets : {0, 32})
        expect_kept(cpu_attention_workspace(512, 2, 300, args, buckets), [&](Stream& stream) {
          Tensor segments = Tensor::empty(host_allocator(), {2, 4}, kI32, "segments");
          const int32_t rows[] = {0, 300, 0, 300, 300, 212, 300, 212};
          std::copy(std::begin(rows), std::end(rows), segments.data<int32_t>());
          const Shape wide{512, 4 * 64}, narrow{512, 2 * 64};
          const Tensor q = random_tensor(wide, type, 1), k = random_tensor(narrow, type, 2),
                       v = random_tensor(narrow, type, 3), dout = random_tensor(wide, type, 4),
                       bias = buckets > 0 ? random_tensor({buckets, 4}, kF32, 5) : Tensor();
          const auto like = [&](const Shape& shape, DType dtype) {
            return Tensor::empty(host_allocator(), shape, dtype, "result");
          };
          Tensor out = like(wide, type), lse = like({512, 4}, kF32), dq = like(wide, type),
                 dk = like(narrow, type), dv = like(narrow, type),
                 dbias = buckets > 0 ? like({buckets, 4}, kF32) : Tensor();
          attention(stream, q, k, v, bias, segments, args, out, lse);
          attention_backward(stream, dout, q, k, v, bias, out, lse, segments, args, dq, dk, dv, dbias, false);
        });
  });
  set_threads(0);
}

}  // namespace
}  // namespace nibble::backend

#include <array>
#include <cmath>
#include <fstream>
#include <sstream>

#include "backend/cpu/attention.h"
#include "base/json.h"
#include "tests/backend/kernel_cases.h"

namespace nibble::backend {
namespace {

struct Case {
  std::vector<std::array<int32_t, 4>> segments;
  AttentionArgs args;
  int64_t q_rows, k_rows;  // of the streams; some may be in no segment
  int64_t buckets = 0;     // of a relative bias
};

Case make_case(std::vector<std::array<int32_t, 4>> segments, int64_t heads, int64_t kv_heads, int64_t width,
               bool causal, int64_t window) {
  Case c{std::move(segments), {heads, kv_heads, width, 0.2f, causal, window}, 2, 1};
  for (const auto& s : c.segments) {
    c.q_rows = std::max<int64_t>(c.q_rows, s[0] + s[1] + 2);
    c.k_rows = std::max<int64_t>(c.k_rows, s[2] + s[3] + 1);
  }
  return c;
}

Tensor segment_table(const Case& c) {
  Tensor t = Tensor::empty(host_allocator(), {static_cast<int64_t>(c.segments.size()), 4}, kI32, "segments");
  for (size_t i = 0; i < c.segments.size(); ++i)
    std::copy_n(c.segments[i].begin(), 4, t.data<int32_t>() + 4 * i);
  return t;
}

struct Naive {
  std::vector<double> out, lse, dq, dk, dv, dbias;
  std::vector<double> magnitude;  // Σ p · |v| of each output
};

Naive naive(const Case& c, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
            const Tensor& dout) {
  const auto [heads, kv_heads, width, scale, causal, window, softcap, alibi, bias_distance] = c.args;
  const auto bucket = [&, both = !causal, furthest = bias_distance](int64_t distance) {
    return cpu::relative_bucket(distance, both, c.buckets, furthest);
  };
  const auto fq = floats_of(q), fk = floats_of(k), fv = floats_of(v), fd = floats_of(dout);
  Naive n{std::vector<double>(fq.size()), std::vector<double>(static_cast<size_t>(c.q_rows * heads)),
          std::vector<double>(fq.size()), std::vector<double>(fk.size()),
          std::vector<double>(fk.size()), std::vector<double>(static_cast<size_t>(c.buckets * heads)),
          std::vector<double>(fq.size())};
  for (const auto& [q0, nq, k0, nk] : c.segments)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < nq; ++i) {
        const int64_t last = causal ? nk - nq + i : nk - 1,
                      first = window > 0 ? std::max<int64_t>(0, last - window + 1) : 0;
        if (last < first) continue;
        const auto at_q = static_cast<size_t>(((q0 + i) * heads + h) * width);
        const auto at_k = [begin = k0, kv = kv_heads, head = h / (heads / kv_heads), step = width](
                              int64_t j) { return static_cast<size_t>(((begin + j) * kv + head) * step); };
        const auto width_z = static_cast<size_t>(width);
        std::vector<double> p(static_cast<size_t>(last + 1)), through(p.size(), 1.0);
        double high = -1e300, sum = 0, delta = 0;
        for (int64_t j = first; j <= last; ++j) {
          double dot = 0;
          for (size_t x = 0; x < width_z; ++x) dot += static_cast<double>(fq[at_q + x]) * fk[at_k(j) + x];
          double& score = p[static_cast<size_t>(j)];
          score = dot * scale;
          if (softcap > 0) {
            const double t = std::tanh(score / softcap);
            score = softcap * t;
            through[static_cast<size_t>(j)] = 1 - t * t;
          }
          // The slopes of three heads: those of two, then every other one of four.
          if (alibi)
            score += std::array{1.0 / 16, 1.0 / 256, 0.25}[static_cast<size_t>(h)] *
                     static_cast<double>(j - (nk - nq + i));
          if (c.buckets > 0) score += bias.data<float>()[bucket(j - (nk - nq + i)) * heads + h];
          high = std::max(high, score);
        }
        for (int64_t j = first; j <= last; ++j)
          sum += p[static_cast<size_t>(j)] = std::exp(p[static_cast<size_t>(j)] - high);
        n.lse[static_cast<size_t>((q0 + i) * heads + h)] = high + std::log(sum);
        for (int64_t j = first; j <= last; ++j) {
          p[static_cast<size_t>(j)] /= sum;
          for (size_t x = 0; x < width_z; ++x) {
            n.out[at_q + x] += p[static_cast<size_t>(j)] * fv[at_k(j) + x];
            n.magnitude[at_q + x] +=
                p[static_cast<size_t>(j)] * std::abs(static_cast<double>(fv[at_k(j) + x]));
          }
        }
        for (size_t x = 0; x < width_z; ++x) delta += fd[at_q + x] * n.out[at_q + x];
        for (int64_t j = first; j <= last; ++j) {
          double dp = 0;
          for (size_t x = 0; x < width_z; ++x) dp += static_cast<double>(fd[at_q + x]) * fv[at_k(j) + x];
          const double pj = p[static_cast<size_t>(j)],
                       ds = pj * (dp - delta) * scale * through[static_cast<size_t>(j)];
          if (c.buckets > 0)
            n.dbias[static_cast<size_t>(bucket(j - (nk - nq + i)) * heads + h)] += pj * (dp - delta);
          for (size_t x = 0; x < width_z; ++x) {
            n.dq[at_q + x] += ds * fk[at_k(j) + x];
            n.dk[at_k(j) + x] += ds * fq[at_q + x];
            n.dv[at_k(j) + x] += pj * fd[at_q + x];
          }
        }
      }
  return n;
}

// step: what products of bf16 use.
void check_step(const Case& c, DType dtype, cpu::Step step) {
  SCOPED_TRACE(
      fmt::format("step {}, {} segments, first {} x {}, {} / {} heads of {}, causal {}, window {}, {}",
                  static_cast<int>(step), c.segments.size(), c.segments.empty() ? 0 : c.segments[0][1],
                  c.segments.empty() ? 0 : c.segments[0][3], c.args.heads, c.args.kv_heads, c.args.head_width,
                  c.args.causal, c.args.window, dtype_name(dtype)));
  Stream stream(host_allocator());
  const Shape wide{c.q_rows, c.args.heads * c.args.head_width},
      narrow{c.k_rows, c.args.kv_heads * c.args.head_width};
  const Tensor q = random_tensor(wide, dtype, 1), k = random_tensor(narrow, dtype, 2),
               v = random_tensor(narrow, dtype, 3);
  const Tensor dout = random_tensor(wide, dtype, 4), table = segment_table(c);
  Guarded out = guarded(wide, dtype, 5), lse = guarded({c.q_rows, c.args.heads}, kF32, 6);
  Guarded dq = guarded(wide, dtype, 7), dk = guarded(narrow, dtype, 8), dv = guarded(narrow, dtype, 9);
  const Tensor bias = c.buckets > 0 ? random_tensor({c.buckets, c.args.heads}, kF32, 10) : Tensor();
  Guarded dbias = guarded({std::max<int64_t>(c.buckets, 1), c.args.heads}, kF32, 11);
  Tensor wanted = c.buckets > 0 ? dbias.tensor : Tensor();
  attention(stream, q, k, v, bias, table, c.args, out.tensor, lse.tensor);
  attention_backward(stream, dout, q, k, v, bias, out.tensor, lse.tensor, table, c.args, dq.tensor, dk.tensor,
                     dv.tensor, wanted, false);
  for (const Guarded* g : {&out, &lse, &dq, &dk, &dv, &dbias}) g->expect_untouched("attention");
  const Naive want = naive(c, q, k, v, bias, dout);
  if (c.buckets > 0) expect_near(dbias.tensor, want.dbias, dtype == kF32 ? 5e-6 : 2e-2, "dbias");
  const double relative = dtype == kF32 ? 5e-6 : 2e-2;  // in bf16 Δ comes from the rounded output
  if (dtype == kF32 || step == cpu::Step::kFloat) {
    expect_near(out.tensor, want.out, 5e-6, "out");
  } else {  // every p is rounded to bf16 before it meets v, and the output is
    const auto values = floats_of(out.tensor);
    for (size_t i = 0; i < values.size(); ++i)
      ASSERT_LE(std::abs(values[i] - want.out[i]), (want.magnitude[i] + std::abs(want.out[i])) / 255 + 1e-6)
          << "out, element " << i << ": " << values[i] << " for " << want.out[i];
  }
  expect_near(lse.tensor, want.lse, 2e-6, "lse");
  expect_near(dq.tensor, want.dq, relative, "dq");
  expect_near(dk.tensor, want.dk, relative, "dk");
  expect_near(dv.tensor, want.dv, relative, "dv");
}

void check(const Case& c, DType dtype) {
  check_step(c, dtype, cpu::bf16_step());
  if (dtype == kF32) return;
  for (const cpu::Step step : {cpu::Step::kFloat, cpu::Step::kEmulatedPair}) {
    cpu::force_bf16_step(step);
    check_step(c, dtype, step);
  }
  cpu::force_bf16_step(std::nullopt);
}

TEST(Attention, SegmentsMasksWindowsAndGroups) {
  const Case cases[] = {
      make_case({}, 2, 1, 8, true, 0),
      make_case({{0, 1, 0, 1}}, 1, 1, 1, true, 0),
      make_case({{0, 5, 0, 5}}, 3, 1, 5, true, 0),
      make_case({{0, 70, 0, 70}, {70, 1, 70, 9}, {75, 33, 80, 33}}, 6, 2, 16, true, 0),
      make_case({{0, 50, 0, 20}, {50, 9, 20, 77}}, 2, 2, 24, false, 0),
      make_case({{0, 50, 0, 20}, {50, 9, 20, 77}}, 2, 2, 24, true, 0),  // the first queries see no key
      make_case({{0, 120, 0, 130}}, 2, 1, 40, true, 31),
      make_case({{0, 66, 0, 66}}, 1, 1, 64, false, 7),
      make_case({{0, 3, 0, 300}}, 4, 2, 64, true, 0),
      make_case({{0, 3, 0, 300}}, 4, 2, 64, true, 100),
      make_case({{0, 0, 0, 5}, {0, 6, 5, 6}, {8, 4, 20, 0}}, 2, 2, 8, true, 0),
  };
  on_every_target([&] {
    for (const Case& c : cases)
      for (const DType t : kFloats) check(c, t);
    for (Case c : {make_case({{0, 70, 0, 70}, {70, 1, 70, 9}, {75, 33, 80, 33}}, 3, 1, 16, true, 0),
                   make_case({{0, 120, 0, 330}}, 3, 3, 40, true, 31)})
      for (const float cap : {0.0f, 1.5f})
        for (const bool alibi : {false, true}) {
          c.args.softcap = cap;
          c.args.alibi = alibi;
          check(c, kF32);
        }
  });
}

TEST(Attention, ARelativeBiasAndItsGradient) {
  on_every_target([&] {
    for (Case c :
         {make_case({{0, 70, 0, 70}, {70, 1, 70, 9}, {75, 33, 80, 33}}, 3, 3, 16, true, 0),
          make_case({{0, 70, 0, 70}, {70, 1, 70, 1}, {75, 33, 80, 33}}, 3, 3, 16, false, 0),
          make_case({{0, 120, 0, 330}}, 4, 2, 24, true, 31), make_case({{0, 3, 0, 300}}, 2, 2, 64, true, 0),
          make_case({{0, 200, 0, 300}}, 1, 1, 7, false, 0)}) {
      c.buckets = 32;
      for (const float cap : {0.0f, 1.5f}) {
        c.args.softcap = cap;
        for (const DType t : kFloats) check(c, t);
      }
    }
  });
}

// Transformers' buckets for every distance from -200 to 200.
TEST(Attention, BucketsAreTransformers) {
  const std::string path = std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens/t5/cases.json";
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  const Json settings = parse_json(text.str(), path)["buckets"];
  ASSERT_FALSE(settings.empty());
  for (const Json& s : settings)
    for (int64_t d = -200; d <= 200; ++d)
      EXPECT_EQ(cpu::relative_bucket(d, s["both_ways"].get<bool>(), s["buckets"].get<int64_t>(),
                                     s["furthest"].get<int64_t>()),
                s["of"][static_cast<size_t>(d + 200)].get<int32_t>())
          << d << " of " << s["buckets"] << " buckets up to " << s["furthest"];
}

TEST(Attention, ManyTilesOfQueriesAndBlocksOfKeys) {
  check(make_case({{0, 300, 0, 600}}, 2, 1, 20, true, 0), kF32);
  check(make_case({{0, 300, 0, 600}}, 2, 1, 20, true, 290), kF32);
  check(make_case({{0, 100, 0, 530}}, 2, 2, 64, false, 0), kBF16);
}

TEST(Attention, SameBytesForAnyThreadsAndPlace) {
  Stream stream(host_allocator());
  const AttentionArgs args{4, 2, 16, 0.3f, true, 0};
  const Shape wide{400, 64}, narrow{400, 32};
  const Tensor q = random_tensor(wide, kBF16, 1), k = random_tensor(narrow, kBF16, 2),
               v = random_tensor(narrow, kBF16, 3);
  const auto run = [&](const Tensor& query, const Tensor& key, const Tensor& value, const Case& c) {
    const Shape rows{c.q_rows, 64}, key_rows{c.k_rows, 32};
    Tensor out = Tensor::empty(host_allocator(), rows, kBF16, "out"),
           lse = Tensor::empty(host_allocator(), {c.q_rows, 4}, kF32, "lse");
    Tensor dq = Tensor::empty(host_allocator(), rows, kBF16, "dq"),
           dk = Tensor::empty(host_allocator(), key_rows, kBF16, "dk");
    Tensor dv = Tensor::empty(host_allocator(), key_rows, kBF16, "dv");
    const Tensor table = segment_table(c);
    const Tensor bias = random_tensor({8, 4}, kF32, 9);
    Tensor dbias = Tensor::empty(host_allocator(), {8, 4}, kF32, "dbias");
    attention(stream, query, key, value, bias, table, args, out, lse);
    attention_backward(stream, query, query, key, value, bias, out, lse, table, args, dq, dk, dv, dbias,
                       false);
    return std::vector<Tensor>{out, lse, dq, dk, dv, dbias};
  };
  Case packed{{{0, 150, 0, 150}, {150, 100, 150, 100}, {250, 150, 250, 150}}, args, 400, 400};
  expect_same(Same::kThreads, [&] {
    std::string all;
    for (const Tensor& t : run(q, k, v, packed)) all += bytes_of(t);
    return all;
  });
  // A segment alone gives what it gives among others.
  const auto together = run(q, k, v, packed);
  const auto alone =
      run(q.rows(150, 250), k.rows(150, 250), v.rows(150, 250), Case{{{0, 100, 0, 100}}, args, 100, 100});
  for (size_t i = 0; i + 1 < together.size(); ++i)
    EXPECT_EQ(bytes_of(together[i].rows(150, 250)), bytes_of(alone[i])) << i;
}

// Single rows of many sequences: a thread takes all heads of a row then, and one head of it where rows are
// few.
TEST(Attention, RowsOfManySequencesAreWhatEachIsAlone) {
  const int before = threads();
  set_threads(1);
  const std::vector<std::array<int32_t, 4>> segments = {{0, 1, 0, 9},    {1, 2, 9, 40},   {3, 4, 49, 77},
                                                        {7, 1, 126, 16}, {8, 3, 142, 33}, {11, 1, 175, 300}};
  on_every_target([&] {
    for (const auto& [heads, kv_heads, width, window] :
         {std::array<int64_t, 4>{6, 2, 64, 0}, {3, 3, 16, 20}, {8, 1, 40, 0}}) {
      Case c = make_case(segments, heads, kv_heads, width, true, window);
      c.args.scale = 1 / std::sqrt(static_cast<float>(width));
      c.args.alibi = window > 0;
      for (const DType t : kFloats) {
        check(c, t);
        Stream stream(host_allocator());
        const Tensor q = random_tensor({c.q_rows, heads * width}, t, 1),
                     k = random_tensor({c.k_rows, kv_heads * width}, t, 2),
                     v = random_tensor({c.k_rows, kv_heads * width}, t, 3);
        const auto run = [&](const Case& part) {
          Tensor out = Tensor::empty(host_allocator(), q.shape(), t, "out"),
                 lse = Tensor::empty(host_allocator(), {c.q_rows, heads}, kF32, "lse");
          attention(stream, q, k, v, Tensor(), segment_table(part), part.args, out, lse);
          return std::vector<Tensor>{out, lse};
        };
        const auto together = run(c);
        for (const auto& segment : segments) {
          Case alone = c;
          alone.segments = {segment};
          const auto own = run(alone);
          for (size_t i = 0; i < 2; ++i)
            EXPECT_EQ(bytes_of(together[i].rows(segment[0], segment[0] + segment[1])),
                      bytes_of(own[i].rows(segment[0], segment[0] + segment[1])))
                << heads << " heads, from row " << segment[0];
        }
      }
    }
  });
  set_threads(before);
}

TEST(Attention, NanIsNotHidden) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  for (const int32_t rows : {1, 20}) {
    const Case c = make_case({{0, rows, 0, 20}}, 1, 1, 8, true, 0);
    const Tensor q = random_tensor({c.q_rows, 8}, kF32, 1), k = random_tensor({c.k_rows, 8}, kF32, 2),
                 v = random_tensor({c.k_rows, 8}, kF32, 3);
    k.data<float>()[0] = std::nanf("");
    Tensor out = Tensor::empty(host_allocator(), {c.q_rows, 8}, kF32, "out"),
           lse = Tensor::empty(host_allocator(), {c.q_rows, 1}, kF32, "lse");
    attention(stream, q, k, v, Tensor(), segment_table(c), c.args, out, lse);
    for (int32_t i = 0; i < rows * 8; ++i) EXPECT_TRUE(std::isnan(out.data<float>()[i]));
  }
}

}  // namespace
}  // namespace nibble::backend

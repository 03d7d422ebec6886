// Speed of quantized weights beside what the machine can copy and read in the same run:
//   bench_quant [--benchmark_filter=…]
// items_per_second counts weights; bytes_per_second what is read and written (products: the stored weight
// alone).
#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <vector>

#include "backend/kernels/cast.h"
#include "backend/kernels/matvec.h"
#include "backend/kernels/quantize.h"
#include "base/parallel.h"

namespace nibble::backend {
namespace {

constexpr int64_t kRows = 4096,
                  kCols = 4096;  // too large for the caches, as the weights of a model together are
// A layer of SmolLM2-135M, decoded into caches as a step does; also in peers/quantize.py.
const Shape kLayer = {1536, 576};

Tensor random_values(const Shape& shape, DType dtype) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> period(1 << 16);
  for (float& x : period) x = normal(random);
  Tensor t = Tensor::empty(host_allocator(), shape, dtype, "bench");
  for (int64_t i = 0; i < t.numel(); ++i) {
    const float x = period[static_cast<size_t>(i * 7919 & 0xFFFF)];
    if (dtype == kF32) t.data<float>()[i] = x;
    if (dtype == kBF16) t.data<BFloat16>()[i] = to_bf16(x);
  }
  return t;
}

quant::Weight make_weight(Stream& stream, const char* name, bool double_quant,
                          const Shape& shape = {kRows, kCols}) {
  quant::Weight w =
      allocate_weight(host_allocator(), shape, quant::parse_quantize(name, double_quant, 64), kBF16, "w");
  encode_weight(stream, random_values(shape, kBF16), w);
  return w;
}

// Blocks of zeros but for their scales: speed does not depend on the values.
quant::Weight make_ggml(GgmlType type) {
  const GgmlBlock block = ggml_block(static_cast<uint32_t>(type));
  Tensor bytes = Tensor::empty(host_allocator(), {kRows * kCols / block.values * block.bytes}, kU8, "w");
  std::memset(bytes.raw(), 0x11, static_cast<size_t>(bytes.bytes()));
  return quant::ggml_weight(static_cast<uint32_t>(type), {kRows, kCols}, bytes);
}

void count(benchmark::State& state, int64_t items, int64_t bytes) {
  state.SetItemsProcessed(state.iterations() * items);
  state.SetBytesProcessed(state.iterations() * bytes);
}

void BM_memcpy(benchmark::State& state) {
  const Tensor from = random_values({kRows * kCols}, kBF16);
  const Tensor to = Tensor::empty(host_allocator(), {kRows * kCols}, kBF16, "bench");
  for (auto _ : state)
    parallel_for(from.bytes(), 1 << 18, [&](int64_t b, int64_t e) {
      std::memcpy(to.raw() + b, from.raw() + b, static_cast<size_t>(e - b));
    });
  count(state, kRows * kCols, 2 * from.bytes());
}
BENCHMARK(BM_memcpy)->UseRealTime();

void BM_encode(benchmark::State& state, const char* name, bool double_quant, DType dtype) {
  Stream stream(host_allocator());
  const Tensor values = random_values(kLayer, dtype);
  quant::Weight w =
      allocate_weight(host_allocator(), kLayer, quant::parse_quantize(name, double_quant, 64), dtype, "w");
  for (auto _ : state) encode_weight(stream, values, w);
  count(state, w.numel(), values.bytes() + w.stored_bytes());
}
BENCHMARK_CAPTURE(BM_encode, nf4_dq_from_f32, "nf4", true, kF32)->UseRealTime();
BENCHMARK_CAPTURE(BM_encode, nf4_dq_from_bf16, "nf4", true, kBF16)->UseRealTime();
BENCHMARK_CAPTURE(BM_encode, int8_from_bf16, "int8", false, kBF16)->UseRealTime();

void decode(benchmark::State& state, const quant::Weight& w, DType dtype) {
  Stream stream(host_allocator());
  Tensor out = Tensor::empty(host_allocator(), w.shape, dtype, "out");
  for (auto _ : state) decode_weight(stream, w, 0, w.rows(), out);
  count(state, w.numel(), out.bytes() + w.stored_bytes());
}
void BM_decode(benchmark::State& state, const char* name, bool double_quant, DType dtype) {
  Stream stream(host_allocator());
  decode(state, make_weight(stream, name, double_quant, kLayer), dtype);
}
void BM_decode_ggml(benchmark::State& state, GgmlType type, DType dtype) {
  decode(state, make_ggml(type), dtype);
}
BENCHMARK_CAPTURE(BM_decode, nf4_dq_to_bf16, "nf4", true, kBF16)->UseRealTime();
BENCHMARK_CAPTURE(BM_decode, nf4_to_f32, "nf4", false, kF32)->UseRealTime();
BENCHMARK_CAPTURE(BM_decode, int8_to_bf16, "int8", false, kBF16)->UseRealTime();
BENCHMARK_CAPTURE(BM_decode_ggml, q4_1_to_bf16, GgmlType::kQ4_1, kBF16)->UseRealTime();
BENCHMARK_CAPTURE(BM_decode_ggml, q8_0_to_bf16, GgmlType::kQ8_0, kBF16)->UseRealTime();
BENCHMARK_CAPTURE(BM_decode_ggml, q4_k_to_bf16, GgmlType::kQ4_K, kBF16)->UseRealTime();
BENCHMARK_CAPTURE(BM_decode_ggml, q5_k_to_bf16, GgmlType::kQ5_K, kBF16)->UseRealTime();
BENCHMARK_CAPTURE(BM_decode_ggml, q6_k_to_bf16, GgmlType::kQ6_K, kBF16)->UseRealTime();

void matvec(benchmark::State& state, const quant::Weight& w, DType dtype, int64_t rows) {
  Stream stream(host_allocator());
  const Tensor x = random_values({rows, kCols}, dtype);
  Tensor y = Tensor::empty(host_allocator(), {rows, kRows}, dtype, "y");
  Matvec product{&w, y};
  RowGroups groups;
  RoundedMatvec rounded{&w, &groups, y};
  const bool rounds = dtype == kBF16 && has_rounded_product(w);
  if (rounds) group_rows(stream, w, groups);
  for (auto _ : state)
    if (rounds)
      rounded_product(stream, x, {&rounded, 1});
    else
      weight_matvec(stream, x, {&product, 1});
  count(state, kRows * kCols * rows, w.stored_bytes());
}
void BM_matvec(benchmark::State& state, const char* name, bool double_quant, DType dtype, int64_t rows) {
  Stream stream(host_allocator());
  matvec(state, make_weight(stream, name, double_quant), dtype, rows);
}
void BM_matvec_ggml(benchmark::State& state, GgmlType type, DType dtype, int64_t rows) {
  matvec(state, make_ggml(type), dtype, rows);
}
void BM_matvec_dense(benchmark::State& state, DType dtype) {
  matvec(state, quant::dense_weight(random_values({kRows, kCols}, dtype)), dtype, 1);
}
BENCHMARK_CAPTURE(BM_matvec_dense, bf16, kBF16)->UseRealTime();
BENCHMARK_CAPTURE(BM_matvec, nf4_dq_bf16, "nf4", true, kBF16, 1)->UseRealTime();
BENCHMARK_CAPTURE(BM_matvec, nf4_dq_f32, "nf4", true, kF32, 1)->UseRealTime();
BENCHMARK_CAPTURE(BM_matvec, nf4_dq_bf16_4_rows, "nf4", true, kBF16, 4)->UseRealTime();
BENCHMARK_CAPTURE(BM_matvec, int8_bf16, "int8", false, kBF16, 1)->UseRealTime();
BENCHMARK_CAPTURE(BM_matvec_ggml, q4_1_bf16, GgmlType::kQ4_1, kBF16, 1)->UseRealTime();
BENCHMARK_CAPTURE(BM_matvec_ggml, q4_1_f32, GgmlType::kQ4_1, kF32, 1)->UseRealTime();
BENCHMARK_CAPTURE(BM_matvec_ggml, q8_0_bf16, GgmlType::kQ8_0, kBF16, 1)->UseRealTime();
BENCHMARK_CAPTURE(BM_matvec_ggml, q4_1_bf16_16_rows, GgmlType::kQ4_1, kBF16, 16)->UseRealTime();
BENCHMARK_CAPTURE(BM_matvec_ggml, q8_0_bf16_16_rows, GgmlType::kQ8_0, kBF16, 16)->UseRealTime();
BENCHMARK_CAPTURE(BM_matvec_ggml, q4_k_bf16, GgmlType::kQ4_K, kBF16, 1)->UseRealTime();
BENCHMARK_CAPTURE(BM_matvec_ggml, q6_k_bf16, GgmlType::kQ6_K, kBF16, 1)->UseRealTime();

}  // namespace
}  // namespace nibble::backend

int main(int argc, char** argv) {
  nibble::backend::register_cpu_kernels();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

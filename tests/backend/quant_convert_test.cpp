// Conversion in chunks, allocation and leases.
#include "backend/weight_lease.h"
#include "tests/backend/quant_cases.h"

namespace nibble::backend {
namespace {

void expect_same_weight(const quant::Weight& got, const quant::Weight& want) {
  quant::require_consistent(got, "test");
  EXPECT_EQ(got.describe(), want.describe());
  EXPECT_EQ(got.shape, want.shape);
  for (const auto part : {&quant::Weight::codes, &quant::Weight::absmax, &quant::Weight::absmax_codes,
                          &quant::Weight::nested_absmax}) {
    ASSERT_EQ((got.*part).defined(), (want.*part).defined());
    EXPECT_TRUE(!(got.*part).defined() || bytes_of(got.*part) == bytes_of(want.*part));
  }
  EXPECT_EQ(got.nested_offset, want.nested_offset);
}

// More values than one chunk, in rows that blocks straddle.
TEST(ConvertWeight, ChunksGiveWhatOnePieceGives) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  for (const auto& [shape, dtype] : {std::pair{Shape{1900, 577}, kF32}, std::pair{Shape{1900, 576}, kBF16}}) {
    const auto values = normal_values(shape.numel());
    const quant::Weight dense = quant::dense_weight(tensor_of(values, shape, dtype));
    const auto rounded = floats_of(dense.dense);
    for (const auto& [name, twice] :
         {std::pair{"nf4", true}, std::pair{"e2m1", false}, std::pair{"int8", false}}) {
      const auto spec = quant::parse_quantize(name, twice, 64);
      const quant::Weight got = convert_weight(stream, dense, spec, kBF16, "w");
      expect_same_weight(got, quant::encode(*spec.format, rounded, shape, spec.block, twice));
      EXPECT_EQ(got.logical_dtype, dtype);
    }
  }
}

TEST(ConvertWeight, FromBlocksInHeadOrder) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const quant::Weight q4 = random_ggml(GgmlType::kQ4_1, 64, 96, 4);
  std::vector<float> values(64 * 96);
  quant::decode_rows(q4, 0, 64, values.data());
  expect_same_weight(convert_weight(stream, q4, quant::parse_quantize("nf4", false, 64), kBF16, "w"),
                     quant::encode(quant::find_format("nf4"), values, {64, 96}, 64, false));
}

TEST(ConvertWeight, PoliciesKeepOrDecode) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const quant::Weight q4 = random_ggml(GgmlType::kQ4_1, 8, 64, 2);
  const quant::Weight dense = quant::dense_weight(tensor_of(normal_values(512), {8, 64}, kF32));
  const auto stored = quant::parse_quantize("stored", false, 64),
             none = quant::parse_quantize("none", false, 64);
  EXPECT_EQ(convert_weight(stream, q4, stored, kBF16, "w").blocks.raw(), q4.blocks.raw());
  const quant::Weight rounded = convert_weight(stream, dense, stored, kBF16, "w");
  EXPECT_EQ(rounded.dense.dtype(), kBF16);
  EXPECT_EQ(bytes_of(rounded.dense), bytes_of(tensor_of(floats_of(dense.dense), {8, 64}, kBF16)));
  EXPECT_EQ(convert_weight(stream, dense, none, kF32, "w").dense.raw(), dense.dense.raw());
  std::vector<float> values(512);
  quant::decode_rows(q4, 0, 8, values.data());
  EXPECT_EQ(floats_of(convert_weight(stream, q4, none, kF32, "w").dense), values);
  // What already has the wanted form is taken as it is.
  const quant::Weight nf4 = quant::encode(quant::find_format("nf4"), values, {8, 64}, 64, true);
  EXPECT_EQ(convert_weight(stream, nf4, quant::parse_quantize("nf4", true, 64), kBF16, "w").codes.raw(),
            nf4.codes.raw());
}

TEST(WeightLease, LendsOrDecodes) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const quant::Weight dense = quant::dense_weight(tensor_of(normal_values(512), {8, 64}, kF32));
  EXPECT_EQ(WeightLease(stream, dense, kF32).values().raw(), dense.dense.raw());
  const WeightLease rounded(stream, dense, kBF16);
  EXPECT_EQ(bytes_of(rounded.values()), bytes_of(tensor_of(floats_of(dense.dense), {8, 64}, kBF16)));
  const quant::Weight w = random_ggml(GgmlType::kQ8_0, 8, 64, 2);
  const WeightLease lease(stream, w, kF32);
  EXPECT_EQ(lease.values().shape(), (Shape{8, 64}));
  std::vector<float> values(512);
  quant::decode_rows(w, 0, 8, values.data());
  EXPECT_EQ(floats_of(lease.values()), values);
}

TEST(WeightLease, TheMetaDeviceLeavesTheSameRecord) {
  const auto host = make_host_allocator(), meta = make_meta_allocator();
  const auto spec = quant::parse_quantize("nf4", true, 64);
  for (Allocator* a : {host.get(), meta.get()}) {
    Stream stream(*a);
    const quant::Weight w = allocate_weight(*a, {300, 64}, spec, kBF16, "w");
    if (a == host.get()) {
      std::memset(w.absmax_codes.raw(), 0, 300);
      std::memset(w.nested_absmax.raw(), 0, 8);
    }
    const WeightLease lease(stream, w, kBF16);
    EXPECT_EQ(lease.values().device(), a->device());
    EXPECT_EQ(lease.values().raw() == nullptr, a == meta.get());
  }
  EXPECT_EQ(host->ledger().peak_bytes(), meta->ledger().peak_bytes());
}

}  // namespace
}  // namespace nibble::backend

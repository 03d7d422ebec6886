// Decoding, encoding and casts equal the scalar definitions bit for bit on every instruction set.
#include <bit>
#include <limits>

#include "backend/kernels/cast.h"
#include "tests/backend/quant_cases.h"

namespace nibble::backend {
namespace {

TEST(QuantKernels, DecodeEqualsTheDefinition) {
  on_every_target([] {
    Stream stream(host_allocator());
    for (const int64_t cols : {1, 7, 31, 32, 33, 64, 100, 256, 512, 1024 + 256}) {
      for (const auto& [name, w] : every_weight(8, cols)) {
        for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 8}, {3, 6}, {5, 5}}) {
          std::vector<float> want(static_cast<size_t>((end - begin) * cols));
          quant::decode_rows(w, begin, end, want.data());
          for (const DType dtype : {kF32, kBF16}) {
            Guarded out({end - begin, cols}, dtype);
            decode_weight(stream, w, begin, end, out.tensor);
            out.expect_untouched(name);
            ASSERT_EQ(bytes_of(out.tensor), bytes_of(tensor_of(want, {end - begin, cols}, dtype)))
                << name << ", " << cols << " columns, rows " << begin << " to " << end << " as "
                << dtype_name(dtype);
          }
        }
      }
    }
  });
}

TEST(QuantKernels, DecodeEqualsTheDefinitionForScalesOfAnySize) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  on_every_target([=] {
    Stream stream(host_allocator());
    for (const char* name : {"nf4", "fp4", "af4", "int4", "e3m0"})
      for (const float scale :
           {0.0f, 1e-45f, 1e-40f, 0x1p-126f, 0x1p-118f, 0x1p-101f, 0x1p-100f, -0.7f, 0x1p126f, 0x1.8p126f,
            -0x1.fffffep127f, kInfinity, std::numeric_limits<float>::quiet_NaN()})
        for (const bool everywhere : {true, false}) {
          quant::Weight w =
              allocate_weight(host_allocator(), {8, 576}, quant::parse_quantize(name, false, 64), kBF16, "w");
          encode_weight(stream, tensor_of(normal_values(8 * 576), {8, 576}, kBF16), w);
          auto* absmax = reinterpret_cast<float*>(w.absmax.raw());
          for (int64_t b = everywhere ? 0 : 37; b < (everywhere ? 72 : 38); ++b) absmax[b] = scale;
          std::vector<float> want(8 * 576);
          quant::decode_rows(w, 0, 8, want.data());
          Guarded out({8, 576}, kBF16);
          decode_weight(stream, w, 0, 8, out.tensor);
          ASSERT_EQ(bytes_of(out.tensor), bytes_of(tensor_of(want, {8, 576}, kBF16)))
              << name << ", " << scale;
        }
  });
}

// 360 blocks: the second of the scales' own scales begins within what is read at once.
TEST(QuantKernels, DecodeEqualsTheDefinitionWhereSecondLevelScalesChange) {
  on_every_target([] {
    Stream stream(host_allocator());
    quant::Weight w =
        allocate_weight(host_allocator(), {40, 576}, quant::parse_quantize("nf4", true, 64), kBF16, "w");
    encode_weight(stream, tensor_of(normal_values(40 * 576), {40, 576}, kBF16), w);
    w.nested_absmax.data<float>()[1] *= 3;
    for (const int64_t begin : {0, 1, 3, 16, 27}) {
      std::vector<float> want(static_cast<size_t>((40 - begin) * 576));
      quant::decode_rows(w, begin, 40, want.data());
      Guarded out({40 - begin, 576}, kBF16);
      decode_weight(stream, w, begin, 40, out.tensor);
      ASSERT_EQ(bytes_of(out.tensor), bytes_of(tensor_of(want, {40 - begin, 576}, kBF16))) << begin;
    }
  });
}

// Values that reach every branch: each shape of input in blocks of its own, then a short one.
std::vector<float> awkward_values(int64_t n) {
  auto v = normal_values(n);
  const auto& thresholds = quant::find_format("nf4").codebook->thresholds;
  for (size_t i = 0; i < v.size(); ++i) {
    switch (i / 64 % 8) {
      case 1:
        v[i] = 0;
        break;
      case 2:
        v[i] = i % 64 == 9 ? std::bit_cast<float>(0xFFD50000u) : v[i];  // a NaN of its own bits
        break;
      case 3:
        v[i] = i % 64 == 9 ? -std::numeric_limits<float>::infinity() : v[i];
        break;
      case 4:
        v[i] *= 1e-37f;
        break;
      case 5:
        v[i] = i % 2 == 0 ? 1.0f : thresholds[i % 15];
        break;
      case 6:
        v[i] = 0.25f;
        break;
      default:
        break;
    }
  }
  return v;
}

TEST(QuantKernels, EncodeEqualsTheDefinition) {
  on_every_target([] {
    Stream stream(host_allocator());
    for (const Shape& shape : {Shape{9, 64}, Shape{1, 1}, Shape{3, 43}, Shape{7, 100}, Shape{5, 513}}) {
      for (const DType dtype : {kF32, kBF16, kF16}) {
        const Tensor values = tensor_of(awkward_values(shape.numel()), shape, dtype);
        for (const quant::Format& f : quant::formats()) {
          if (f.kind == quant::Kind::kGgml) continue;
          for (const int64_t block : {32, 64, 128}) {
            const quant::Weight want = quant::encode(f, floats_of(values), shape, block, false);
            Guarded codes(want.codes.shape(), want.codes.dtype()), absmax(want.absmax.shape(), kF32);
            quant::Weight got = want;
            got.codes = codes.tensor;
            got.absmax = absmax.tensor;
            encode_weight(stream, values, got);
            codes.expect_untouched(f.name);
            absmax.expect_untouched(f.name);
            ASSERT_EQ(bytes_of(got.codes), bytes_of(want.codes))
                << f.name << " " << shape.str() << " block " << block;
            ASSERT_EQ(bytes_of(got.absmax), bytes_of(want.absmax))
                << f.name << " " << shape.str() << " block " << block;
          }
        }
      }
    }
  });
}

TEST(QuantKernels, EncodeOfKQuantsEqualsTheDefinition) {
  Stream stream(host_allocator());
  const Shape shape{24, 96};  // blocks that straddle rows
  const auto values = normal_values(shape.numel());
  for (const quant::Format& f : quant::formats()) {
    if (f.kind != quant::Kind::kGgml) continue;
    for (const DType dtype : {kF32, kBF16, kF16}) {
      const Tensor typed = tensor_of(values, shape, dtype);
      const quant::Weight want = quant::encode(f, floats_of(typed), shape, 0, false);
      quant::Weight got = want;
      Guarded blocks(want.blocks.shape(), kU8);
      got.blocks = blocks.tensor;
      encode_weight(stream, typed, got);
      blocks.expect_untouched(f.name);
      EXPECT_EQ(bytes_of(got.blocks), bytes_of(want.blocks)) << f.name;
      // In chunks of rows, as weights are loaded.
      const quant::Weight loaded = convert_weight(stream, quant::dense_weight(typed),
                                                  quant::parse_quantize(f.name, false, 64), kF32, "w");
      EXPECT_EQ(bytes_of(loaded.blocks), bytes_of(want.blocks)) << f.name;
    }
    EXPECT_THROW(
        allocate_weight(host_allocator(), {3, 43}, quant::parse_quantize(f.name, false, 64), kF32, "w"),
        Error);
  }
}

TEST(QuantKernels, EncodeWithDoubleQuantizationEqualsTheDefinition) {
  on_every_target([] {
    Stream stream(host_allocator());
    const Shape shape{700, 65};
    const auto values = normal_values(shape.numel());
    const quant::Weight want = quant::encode(quant::find_format("nf4"), values, shape, 64, true);
    quant::Weight got =
        allocate_weight(host_allocator(), shape, quant::parse_quantize("nf4", true, 64), kF32, "w");
    encode_weight(stream, tensor_of(values, shape, kF32), got);
    EXPECT_EQ(bytes_of(got.codes), bytes_of(want.codes));
    EXPECT_EQ(bytes_of(got.absmax_codes), bytes_of(want.absmax_codes));
    EXPECT_EQ(bytes_of(got.nested_absmax), bytes_of(want.nested_absmax));
    EXPECT_EQ(bytes_of(got.nested_map), bytes_of(want.nested_map));
    EXPECT_EQ(got.nested_offset, want.nested_offset);
  });
}

TEST(QuantKernels, CastsEqualTheScalarConversions) {
  std::vector<uint32_t> bits;
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const uint32_t half = std::bit_cast<uint32_t>(to_float(Float16{static_cast<uint16_t>(h)}));
    // Every bf16 and f16, and what lies on and beside the middle to the next.
    for (const uint32_t b : {h << 16, h << 16 | 0x8000u, h << 16 | 0x7FFFu, h << 16 | 0x8001u, half,
                             half + 0x1000u, half + 0x1001u})
      bits.push_back(b);
  }
  std::vector<float> values(bits.size());
  std::memcpy(values.data(), bits.data(), bits.size() * 4);
  const auto n = static_cast<int64_t>(values.size());
  const Tensor wide = Tensor::borrow(values.data(), {n}, kF32, nullptr);
  on_every_target([&] {
    Stream stream(host_allocator());
    for (const DType dtype : {kBF16, kF16}) {
      Guarded out({n}, dtype);
      cast(stream, wide, out.tensor);
      out.expect_untouched(dtype_name(dtype));
      const Tensor want = tensor_of(values, {n}, dtype);
      ASSERT_EQ(bytes_of(out.tensor), bytes_of(want)) << dtype_name(dtype);
      Guarded back({n}, kF32);
      cast(stream, out.tensor, back.tensor);
      back.expect_untouched(dtype_name(dtype));
      const auto scalar = floats_of(want);
      ASSERT_EQ(std::memcmp(back.tensor.raw(), scalar.data(), scalar.size() * 4), 0) << dtype_name(dtype);
    }
    Guarded odd({7}, kF16);  // shorter than a vector
    cast(stream, wide.rows(100, 107), odd.tensor);
    odd.expect_untouched("odd");
    EXPECT_EQ(bytes_of(odd.tensor),
              bytes_of(tensor_of({values.begin() + 100, values.begin() + 107}, {7}, kF16)));
  });
}

TEST(QuantKernels, ErrorsSayWhatCame) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const auto message = [&](const auto& f) -> std::string {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  const quant::Weight w = quant::encode(quant::find_format("nf4"), normal_values(128), {2, 64}, 64, false);
  Tensor out = Tensor::empty(host_allocator(), {2, 64}, kF16, "out");
  EXPECT_EQ(message([&] { decode_weight(stream, w, 0, 2, out); }),
            "[decode_weight] decodes to f32 or bf16, not f16");
  EXPECT_EQ(message([&] { decode_weight(stream, w, 1, 3, out); }), "[decode_weight] rows 1 to 3 of [2, 64]");
  quant::Weight dense = quant::dense_weight(out);
  EXPECT_EQ(message([&] { encode_weight(stream, out, dense); }), "[encode_weight] cannot encode to dense");
  const Tensor integers = Tensor::empty(host_allocator(), {128}, kI32, "out");
  EXPECT_EQ(message([&] { cast(stream, integers, out); }), "[cast] expected f32, f16 or bf16, got i32");
}

}  // namespace
}  // namespace nibble::backend

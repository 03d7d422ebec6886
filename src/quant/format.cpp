#include "quant/format.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "quant/codebook.h"

namespace nibble::quant {
namespace {

constexpr Format ggml(const char* name, GgmlType type, double bits, const char* about) {
  return {name, Kind::kGgml, nullptr, bits, about, 0, static_cast<uint32_t>(type)};
}

constexpr Format kFormats[] = {
    {"nf4", Kind::kCodebook4, &kNf4, 4,
     "NormalFloat: 16 quantiles of the normal distribution (QLoRA's data type)"},
    {"fp4", Kind::kCodebook4, &kFp4, 4, "the 4-bit float of bitsandbytes"},
    {"e2m1", Kind::kCodebook4, &kE2m1, 4, "the 4-bit float of the OCP Microscaling specification"},
    {"e3m0", Kind::kCodebook4, &kE3m0, 4, "powers of two: sign and three exponent bits"},
    {"int4", Kind::kCodebook4, &kInt4, 4, "fifteen evenly spaced levels"},
    {"af4", Kind::kCodebook4, &kAf4, 4,
     "AbnormalFloat: least absolute error for normal values in blocks of 64", 64},
    {"nf3", Kind::kCodebookLow, &kNf3, 3, "NormalFloat with 8 quantiles"},
    {"nf2", Kind::kCodebookLow, &kNf2, 2, "NormalFloat with 4 quantiles"},
    {"int8", Kind::kInt8Row, nullptr, 8, "LLM.int8: 255 levels, one scale a row"},
    ggml("q2_k", GgmlType::kQ2_K, 2.625, "GGUF, 2 bits, 16 sub-blocks in 256"),
    ggml("q3_k", GgmlType::kQ3_K, 3.4375, "GGUF, 3 bits, 16 sub-blocks in 256"),
    ggml("q4_k", GgmlType::kQ4_K, 4.5, "GGUF, 4 bits, 8 sub-blocks in 256"),
    ggml("q5_k", GgmlType::kQ5_K, 5.5, "GGUF, 5 bits, 8 sub-blocks in 256"),
    ggml("q6_k", GgmlType::kQ6_K, 6.5625, "GGUF, 6 bits, 16 sub-blocks in 256"),
};

constexpr Format kDenseFormat = {"dense", Kind::kDense, nullptr, 16, "values as they are"};

// What GGUF files hold besides.
constexpr Format kReadFormats[] = {
    ggml("f32", GgmlType::kF32, 32, "GGUF, single precision"),
    ggml("f16", GgmlType::kF16, 16, "GGUF, half precision"),
    ggml("bf16", GgmlType::kBF16, 16, "GGUF, bfloat16"),
    ggml("q4_0", GgmlType::kQ4_0, 4.5, "GGUF, 4 bits, blocks of 32 with scale"),
    ggml("q4_1", GgmlType::kQ4_1, 5, "GGUF, 4 bits, blocks of 32 with scale and minimum"),
    ggml("q5_0", GgmlType::kQ5_0, 5.5, "GGUF, 5 bits, blocks of 32 with scale"),
    ggml("q5_1", GgmlType::kQ5_1, 6, "GGUF, 5 bits, blocks of 32 with scale and minimum"),
    ggml("q8_0", GgmlType::kQ8_0, 8.5, "GGUF, 8 bits, blocks of 32 with scale"),
};

constexpr std::array<int64_t, 8> kBlocks = {32, 64, 128, 256, 512, 1024, 2048, 4096};

[[noreturn]] void unknown_format(std::string_view name, bool policies) {
  std::vector<std::string> known;
  for (const Format& f : kFormats) known.emplace_back(f.name);
  if (policies) known.insert(known.end(), {"stored", "none"});
  std::string list;
  for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
  const std::string near = nearest_name(name, known);
  throw UsageError("quantize", fmt::format("unknown format '{}'; expected one of {}{}", name, list,
                                           near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

}  // namespace

std::span<const Format> formats() { return kFormats; }

const Format& find_format(std::string_view name) {
  for (const Format& f : kFormats)
    if (name == f.name) return f;
  unknown_format(name, false);
}

const Format& dense_format() { return kDenseFormat; }

const Format& ggml_format(uint32_t type) {
  for (const std::span<const Format> list :
       {std::span<const Format>(kFormats), std::span<const Format>(kReadFormats)})
    for (const Format& f : list)
      if (f.kind == Kind::kGgml && f.ggml_type == type) return f;
  fail("gguf",
       "tensors of type {} ({}) cannot be decoded; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to "
       "Q6_K can",
       ggml_type_name(type), type);
}

std::string QuantizeSpec::name() const {
  return format != nullptr ? format->name : stored ? "stored" : "none";
}

QuantizeSpec parse_quantize(std::string_view name, bool double_quant, int64_t block) {
  QuantizeSpec spec;
  spec.block = block;
  spec.double_quant = double_quant;
  if (name == "stored" || name == "none") {
    spec.stored = name == "stored";
    spec.double_quant = false;
    return spec;
  }
  for (const Format& f : kFormats)
    if (name == f.name) spec.format = &f;
  if (spec.format == nullptr) unknown_format(name, true);
  if (!spec.format->has_block_scales()) {
    if (double_quant)
      throw UsageError(
          "quantize",
          fmt::format("{} has {} and no block scales to quantize again; leave out double "
                      "quantization or choose a format such as nf4",
                      name, spec.format->kind == Kind::kInt8Row ? "one scale a row" : "quantized scales"));
    spec.block = 0;
    return spec;
  }
  if (std::find(kBlocks.begin(), kBlocks.end(), block) == kBlocks.end())
    throw UsageError("quantize",
                     fmt::format("block size {} is none of 32, 64, 128, 256, 512, 1024, 2048, 4096", block));
  if (spec.format->only_block > 0 && block != spec.format->only_block)
    throw UsageError("quantize", fmt::format("{} is defined for block size {} only, got {}", name,
                                             spec.format->only_block, block));
  return spec;
}

}  // namespace nibble::quant

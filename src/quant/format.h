// The formats a frozen weight can be stored in, one row each (format.cpp), and their scalar definitions.
//
// Four-bit code-book formats (kCodebook4): row-major values of W [out, in] are cut into blocks of `block`
// consecutive values (a block may straddle rows, the last may be short). Each block has one absmax; value i
// is values[code_i] * absmax. Two codes a byte: value 2i in the HIGH nibble, 2i+1 in the LOW one; an odd
// count ends in the code of zero. Bytes equal bitsandbytes' CPU backend (csrc and functional.py of
// bitsandbytes 0.50.2). A new 4-bit format is one file with its table and one row in format.cpp.
//
// Formats of 2 and 3 bits (kCodebookLow) differ in packing alone: code i is the bits [i * bits, (i + 1) *
// bits) of the codes read as one little-endian number, so that 3 bits take 3 bytes for 8 values. Unused bits
// at the end are 0.
//
// GGUF's k-quants (kGgml) are cut over the row-major order as well, 256 values a block: where rows are whole
// blocks, that is what a GGUF file holds. Their encoders are in ggml_encode.cpp.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/gguf.h"

namespace nibble::quant {

enum class Kind : uint8_t {
  kDense,        // F32, F16 or BF16 as they are
  kCodebook4,    // nf4, fp4, e2m1, e3m0, int4 …
  kCodebookLow,  // nf3, nf2
  kInt8Row,      // LLM.int8's weight: q = round(127 w / absmax(row)), ties to even; w ≈ q * absmax / 127
  kGgml,         // blocks of a GGUF file
};

// A code book of at most 16 values; those of 2 and 3 bits fill its first 4 or 8.
struct Codebook4 {
  std::array<float, 16> values;   // by code
  std::array<uint8_t, 16> order;  // codes by ascending value
  // Value x (scaled into [-1, 1]) takes order[number of thresholds below x], as torch.bucketize(right=False)
  // counts; NaN takes order[15]. Thresholds are the f32 midpoints of neighbours.
  std::array<float, 15> thresholds;
  uint8_t zero_code;  // of an all-zero block and of the padding nibble
};

struct Format {
  const char* name;  // "nf4": what recipes, --quantize and checkpoints say
  Kind kind;
  const Codebook4* codebook;  // kCodebook4 and kCodebookLow
  double bits;                // per value, without scales (kGgml: with them)
  const char* about;          // one line for --help
  int64_t only_block = 0;     // > 0: the code book was fitted to this block size and takes no other
  uint32_t ggml_type = 0;     // kGgml

  // Codes with one scale a block, which double quantization applies to.
  bool has_block_scales() const { return kind == Kind::kCodebook4 || kind == Kind::kCodebookLow; }
  // has_block_scales(): bytes of n codes.
  int64_t code_bytes(int64_t n) const { return (n * static_cast<int64_t>(bits) + 7) / 8; }
};

// Every row that a weight can be quantized to, in the order they are documented.
std::span<const Format> formats();
// Errors: UsageError{"quantize"} naming the known formats and the nearest. "none" and "stored" are not
// formats but policies: see QuantizeSpec.
const Format& find_format(std::string_view name);
// What weights are read in: the row of dense values, and that of a GGUF block type ("q4_1").
// Errors: Error{"gguf"} for a type that cannot be decoded.
const Format& dense_format();
const Format& ggml_format(uint32_t type);

// What to do with each frozen linear weight on loading.
struct QuantizeSpec {
  const Format* format = nullptr;  // null: `stored` or `none`
  bool stored = false;             // keep a quantized checkpoint's own blocks; dense weights stay dense
  int64_t block = 64;              // 32, 64, 128, 256, 512, 1024, 2048, 4096
  bool double_quant = false;
  std::string name() const;  // "nf4", "stored", "none"
};
// Errors: UsageError for an unknown name or block size, or double quantization of a format without absmax
// blocks.
QuantizeSpec parse_quantize(std::string_view name, bool double_quant, int64_t block);

}  // namespace nibble::quant

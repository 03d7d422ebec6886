// A frozen (or trainable dense) matrix that owns its format. Models hold Weights and never look inside.
//
// Ownership: shares its tensors, which may lie over a file mapping; immutable after construction except a
// dense one under full fine-tuning. Threading: const access from any thread. Decoding for products goes
// through backend/weight_lease.h; decode_rows() below is the scalar definition that the fast kernels are held
// to, and serves conversion and inspection.
#pragma once
#include <cstdint>
#include <string>

#include "quant/format.h"
#include "tensor/tensor.h"

namespace nibble::quant {

struct Weight {
  Shape shape;  // logical: [out, in] (or [n] for a dense vector)
  const Format* format = nullptr;

  Tensor dense;  // kDense: shape, F32 | F16 | BF16

  // kCodebook4, kCodebookLow: codes U8 [format->code_bytes(n)]; either absmax F32 [blocks], or doubly
  // quantized: absmax_i = nested_map[absmax_codes[i]] * nested_absmax[i / 256] + nested_offset     (f32
  // throughout) kInt8Row: codes I8 [out, in], absmax F32 [out] (bitsandbytes' SCB)
  Tensor codes, absmax;
  Tensor absmax_codes;   // U8 [blocks]
  Tensor nested_absmax;  // F32 [ceil(blocks / 256)]
  Tensor nested_map;     // F32 [256], the checkpoint's own or dynamic_map_signed()
  float nested_offset = 0;
  int64_t block = 0;

  Tensor
      blocks;  // kGgml: U8, blocks over the row-major order (whole rows of them where they come from a file)
  uint32_t ggml_type = 0;
  // GGUF files of the llama architecture store the rows of q and k so that rotary pairs are neighbours. > 0:
  // row r of the logical (Hugging Face) order lies at ggml_row(r); the number is the count of heads. Decoders
  // undo it.
  int64_t interleaved_heads = 0;

  // A dense one in a model whose linears are quantized: products may round it as they do those
  // (backend/weight_lease.h).
  bool beside_quantized = false;

  DType logical_dtype = kF32;  // what the checkpoint says the values were ("dtype" of a quant_state)

  bool defined() const { return format != nullptr; }
  bool is_dense() const { return format != nullptr && format->kind == Kind::kDense; }
  bool double_quantized() const { return absmax_codes.defined(); }
  int64_t rows() const { return shape[0]; }
  int64_t cols() const { return shape.rank() > 1 ? shape[1] : 1; }
  int64_t numel() const { return shape.numel(); }
  int64_t block_count() const { return block == 0 ? 0 : (numel() + block - 1) / block; }
  // Bytes of all parts together; bits per value follow.
  int64_t stored_bytes() const;
  // Stored row of logical row r (identity unless interleaved_heads > 0).
  int64_t ggml_row(int64_t r) const;
  // "nf4 + double quantization, block 64"
  std::string describe() const;
};

Weight dense_weight(Tensor t);
// GGUF blocks over `blocks` (U8). F32, F16 and BF16 become dense ones over the same memory.
// Errors: Error{"gguf"} for a type that cannot be decoded, columns that do not fill blocks, a wrong number of
// bytes, or rows that the heads do not divide evenly.
Weight ggml_weight(uint32_t type, const Shape& shape, Tensor blocks, int64_t interleaved_heads = 0);
// What every reader of quantized files ends with. Errors: Error{where} naming the part whose type or size
// does not fit the shape, format and block size.
void require_consistent(const Weight& w, std::string_view where);

// Values of logical rows [begin, end) as f32 into out[(end - begin) * cols]: the scalar definition of every
// format. For code books: f32 values[code] * f32 absmax, one rounding.
void decode_rows(const Weight& w, int64_t begin, int64_t end, float* out);

// The scalar definition of encoding: n = rows * cols f32 values in row-major order.
// Errors: Error{"quantize"} for values that do not fill the blocks of a k-quant.
// NaN: the block's absmax and values become what bitsandbytes' CPU backend makes of them (golden-tested);
// callers that load models refuse non-finite weights before they come here. A k-quant's whole block decodes
// to NaN.
Weight encode(const Format& format, std::span<const float> values, const Shape& shape, int64_t block,
              bool double_quant);
// Bytes of the blocks of a kGgml format. Errors: Error{"quantize"} for values that do not fill them.
int64_t ggml_bytes(const Format& format, const Shape& shape);
// Second-level quantization of absmax: offset = mean, blocks of 256, nearest code of the signed dynamic map.
// Replaces absmax by the nested parts; REQUIRES: absmax is defined.
void double_quantize(Weight& w);
// The same into parts that exist already: codes [blocks], nested_absmax [ceil(blocks / 256)]; returns the
// offset.
float double_quantize(std::span<const float> absmax, uint8_t* codes, float* nested_absmax);
// absmax of block i, whichever way it is stored.
float block_absmax(const Weight& w, int64_t i);

// bitsandbytes' create_dynamic_map(signed = true), 7 exponent bits, 256 ascending values: exactly its float32
// values.
std::span<const float> dynamic_map_signed();
// The unsigned one, for 8-bit optimizer state (second moment).
std::span<const float> dynamic_map_unsigned();

// GGUF blocks: `bytes` of one row of `cols` values of `type` to f32. Errors: Error{"gguf"} for an unknown
// type.
void decode_ggml_row(uint32_t type, const std::byte* row, int64_t cols, float* out);
// Can this type be decoded (F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K … Q6_K)?
bool ggml_decodable(uint32_t type);

// How far a quantized weight is from the values it was made of.
struct Distortion {
  double rmse = 0, max_abs = 0, relative = 0;  // relative = ‖error‖ / ‖values‖
  double snr_db = 0;
};
Distortion distortion(std::span<const float> values, std::span<const float> decoded);

}  // namespace nibble::quant

// Encoding and decoding of weights at speed. The definitions are quant/weight.h's scalar functions; outputs
// are equal to theirs bit for bit on every instruction set.
#pragma once
#include "backend/kernel_slot.h"
#include "quant/weight.h"

namespace nibble::backend {

// Logical rows [begin, end) of w as out.dtype() (F32 or BF16; one rounding) into out [end - begin, cols].
inline KernelSlot<void(Stream&, const quant::Weight& w, int64_t begin, int64_t end, Tensor& out)>
    decode_weight{"decode_weight"};

// values: F32, F16 or BF16 [out, in] -> out, whose parts (codes, absmax …) are already allocated to size
// (allocate_weight). Includes double quantization when out is doubly quantized.
inline KernelSlot<void(Stream&, const Tensor& values, quant::Weight& out)> encode_weight{"encode_weight"};

// An empty weight of that shape, format and block, its parts allocated under `name`.
quant::Weight allocate_weight(Allocator& allocator, const Shape& shape, const quant::QuantizeSpec& spec,
                              DType logical_dtype, std::string_view name);

// Converts any weight to `spec` in row chunks with bounded memory (decode, then encode); used on loading.
// `none` gives a dense weight of `dense_dtype`; `stored` keeps what is quantized and makes the rest dense
// likewise.
quant::Weight convert_weight(Stream& stream, const quant::Weight& w, const quant::QuantizeSpec& spec,
                             DType dense_dtype, std::string_view name);

}  // namespace nibble::backend

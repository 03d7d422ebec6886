// The limits that speeds are compared with, measured on the machine and in the run they are quoted for.
#pragma once
#include <cstdint>
#include <vector>

#include "tensor/dtype.h"

namespace nibble::backend {

// What the limit of computing in `compute` multiplies: bf16 where that is asked for and the processor does it
// (AVX512-BF16), else f32.
DType limit_dtype(DType compute);

// FLOP/s of the library's product (oneDNN, of limit_dtype(compute)) on the shape of a LLaMA block's
// projections, on all threads: the best of repetitions within about half a second. Measured once a process
// and type.
double matmul_limit_flops(DType compute);
// Bytes that this takes meanwhile: operands, the library's copies of them, its code.
int64_t matmul_limit_bytes(DType compute);

// C [m, n] = A [m, k] · B [k, n], `count` times.
struct ProductShape {
  int64_t m = 0, n = 0, k = 0;
  double count = 1;
};
// Seconds that one pass over all these products takes in the same library and type, on all threads: the
// median of `repetitions` of each after one that is not counted, rows divided by the library or over our
// threads, whichever is faster.
double product_limit_seconds(const std::vector<ProductShape>& shapes, int repetitions, DType compute);

// Bytes per second of reading (summing 256 MB) and of copying (bytes read plus bytes written) on all threads,
// the best of five.
double read_bandwidth();
double copy_bandwidth();

}  // namespace nibble::backend

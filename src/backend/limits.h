// The limit that speeds are compared with, measured on the machine and in the run it is quoted for.
#pragma once

namespace nibble::backend {

// FLOP/s of the library's product (oneDNN, f32) on the shape of a LLaMA block's projections, on all threads:
// the best of repetitions within about 0.2 s. Measured once a process.
double matmul_limit_flops();

}  // namespace nibble::backend

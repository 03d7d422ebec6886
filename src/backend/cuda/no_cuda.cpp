// The build without CUDA: no slot is filled, so a CUDA stream's first kernel says what is missing.
#include "backend/kernel_slot.h"

namespace nibble::backend {

void register_cuda_kernels() {}

}  // namespace nibble::backend

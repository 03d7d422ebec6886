// Which instruction sets the leaf files are compiled for; include before anything of Highway. On x86-64 the least is
// SSSE3 (every processor since 2006; the kernels live on its byte shuffle): Highway's own least, plain scalar code, has
// no vectors of 16 bytes, and the scalar definitions in quant/ are what the tests compare with.
#pragma once
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_SSSE3
#endif

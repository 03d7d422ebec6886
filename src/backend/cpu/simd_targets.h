// Which instruction sets the leaf files are compiled for; include before anything of Highway. On x86-64 the
// least is SSSE3 (every processor since 2006; the kernels live on its byte shuffle): Highway's own least,
// plain scalar code, has no vectors of 16 bytes, and the scalar definitions in quant/ are what the tests
// compare with. Above it AVX2 and AVX-512 (AVX3): SSE4 and AVX3_DL, which Highway also knows, gain nothing
// here and take long to compile.
#pragma once
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_SSSE3
#define HWY_DISABLED_TARGETS (HWY_SSE4 | HWY_AVX3_DL)
#endif

// Tables of rotary cosines and sines with the scalings that published models use, equal to Transformers'
// modeling_rope_utils (frequencies and angles in f32, as there).
//
//   default  f_i = theta^(-2i/n)
//   linear   f_i / factor                                              (kaiokendev 2023)
//   dynamic  theta grows with the length of the sequence beyond the model's context    (NTK, bloc97 2023)
//   llama3   low frequencies divided by factor, a smooth band between  (Llama 3.1)
//   yarn     per-dimension ramp between f_i and f_i / factor, and a factor on cos and sin   (Peng et al.
//   2023)
//   longrope f_i / short_i, or f_i / long_i where a stream's longest sequence is beyond the original context,
//   and a factor on cos and sin (Ding et al. 2024)
//   factors  f_i / factors[i], given one by one (a GGUF file's rope_freqs)
#pragma once
#include <vector>

#include "base/json.h"
#include "tensor/tensor.h"

namespace nibble::nn {

enum class RopeKind : uint8_t { kDefault, kLinear, kDynamic, kLlama3, kYarn, kLongRope, kFactors };

struct RopeSpec {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000;
  int64_t dims = 0;           // n: rotated dimensions of a head
  int64_t max_positions = 0;  // the model's context
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4, beta_fast = 32, beta_slow = 1,
         attention_factor = 1;
  double original_max_positions = 0;
  bool truncate = true;
  std::vector<double> factors;       // longrope: the short ones
  std::vector<double> long_factors;  // longrope

  // From rope_theta, rope_scaling (or rope_parameters) of a config.json. Errors: Error{"config.json"} for an
  // unknown rope_type (the known ones are listed) and for values that make no sense.
  static RopeSpec from_config(const Json& config, int64_t dims, int64_t max_positions);
  // Frequencies for sequences of up to `length` tokens, f32 [n / 2].
  std::vector<float> frequencies(int64_t length) const;
};

// The share of a head that turns: "partial_rotary_factor" wherever a config has it, else `otherwise`. Errors:
// outside (0, 1].
double partial_rotary_factor(const Json& config, double otherwise);

// cos_sin F32 [positions, n] as backend/kernels/rope.h reads it; grows when a longer sequence comes.
class RopeTable {
 public:
  RopeTable() = default;
  RopeTable(RopeSpec spec, Allocator& allocator);
  // The table for this stream's positions (I32 [T]; shapes alone, on the meta device, mean: within the
  // context). Threading: one at a time.
  const Tensor& covering(const Tensor& positions);

 private:
  void build(int64_t rows, int64_t length);
  RopeSpec spec_;
  Allocator* allocator_ = nullptr;
  Tensor table_;
  int64_t length_ = 0;  // dynamic, longrope: the sequence length that the frequencies are for
};

}  // namespace nibble::nn

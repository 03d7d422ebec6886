// Optimizers over named f32 parameters: AdamW with state in 32 or 8 bits, SGD with momentum, Lion; the
// formulas are in backend/kernels/optimizer.h. State may be paged (train/paging.h); every form gives the same
// bytes paged or not.
//
// State is cut into chunks of kChunk values of one parameter (a multiple of the 8-bit blocks), chunks are
// laid into pages. Under 8 bits a parameter of fewer than kSmall values keeps 32-bit state, as in
// bitsandbytes. Threading: one thread.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "backend/stream.h"
#include "train/paging.h"

namespace nibble::train {

enum class OptimizerKind : uint8_t { kAdamW, kAdamW8bit, kSgd, kLion };

struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::kAdamW;
  bool paged = false;
  int64_t paged_memory = 16 << 20;  // bytes of state in memory when paged
  std::string page_file;            // where the pages lie
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, momentum = 0.9, weight_decay = 0;
};
// "paged_adamw_8bit" and the like, as recipes say.
OptimizerOptions optimizer_named(const std::string& name);

class Optimizer {
 public:
  static constexpr int64_t kChunk = 1 << 16, kSmall = 4096, kBlock = 256;

  // Keeps pointers to the parameters, which outlive it. On a meta allocator only the books are kept.
  Optimizer(std::vector<autograd::Parameter*> parameters, OptimizerOptions options, Allocator& allocator);

  // p ← p - update(grad_scale · gradient); `step` counts from 1. REQUIRES: every gradient is filled.
  void step(backend::Stream& stream, int64_t step, double learning_rate, double grad_scale);

  // Bytes of the whole state, and of what is in memory.
  int64_t state_bytes() const { return pages_ * page_bytes_; }
  int64_t resident_bytes() const { return paged_ ? kPageBuffers * page_bytes_ : state_bytes(); }
  // Bytes in the page file; 0 when nothing is paged (also when all state fits into paged_memory).
  int64_t file_bytes() const { return paged_ ? state_bytes() : 0; }

  // The state as named tensors ("<parameter>/exp_avg"), the same whatever the paging.
  struct StateTensor {
    std::string name;
    DType dtype;
    Shape shape;
  };
  std::vector<StateTensor> state_layout() const;
  // Bytes of each tensor of the layout, in order and in pieces.
  void write_state(const std::function<void(std::span<const std::byte>)>& sink);
  // `source` gives the bytes of a tensor. Errors: whatever it throws; a size that differs.
  void read_state(const std::function<std::span<const std::byte>(const StateTensor&)>& source);

 private:
  struct Slot {
    const char* name;
    DType dtype;
    int64_t per;  // values of the parameter that one element of this slot serves: 1 or kBlock
  };
  struct Chunk {
    size_t parameter;
    int64_t begin, end;    // values of the parameter
    int64_t page, offset;  // place of its first slot; the others follow, each 64-byte aligned
  };
  const std::vector<Slot>& slots(size_t parameter) const;
  static int64_t slot_bytes(const Slot& slot, int64_t values);
  int64_t chunk_bytes(size_t parameter, int64_t values) const;
  void lay_out();
  void update(backend::Stream& stream, const Chunk& chunk, const std::vector<Tensor>& state, int64_t step,
              double learning_rate, double grad_scale);
  // body(tensor, offset, bytes) over every tensor's parts, in layout order.
  void visit_parts(
      const std::function<void(const StateTensor&, bool first, int64_t offset, int64_t bytes)>& body) const;

  std::vector<autograd::Parameter*> parameters_;
  OptimizerOptions options_;
  std::vector<Chunk> chunks_;
  int64_t pages_ = 0, page_bytes_ = 0;
  bool paged_ = false;
  std::unique_ptr<StateStore> store_;
};

// √(Σ over parameters of Σ gradient²), each parameter's sum a fixed tree, then a fixed tree over parameters
// in order.
double global_norm(backend::Stream& stream, const std::vector<autograd::Parameter*>& parameters,
                   Tensor& scratch);
// What every gradient is multiplied with, as torch.nn.utils.clip_grad_norm_ does; max_norm 0: no limit.
double clip_factor(double norm, double max_norm);

}  // namespace nibble::train

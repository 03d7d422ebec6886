// What every operation is given: device, memory, tape, compute type, adapters in force, and who watches.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "autograd/tape.h"
#include "backend/stream.h"

namespace nibble::backend {
class GroupedWeights;  // kernels/matvec.h
}

namespace nibble::autograd {

// none keeps what backward reads; selective makes norms and activations again, never a product; block keeps
// only the input of each block and runs the block's forward once more.
enum class Checkpointing : uint8_t { kNone, kSelective, kBlock };

// Tokens [begin, end) of the stream use this adapter; -1 is none.
struct AdapterSpan {
  int64_t begin, end;
  int adapter;
};

// Told of each operation as it runs: a profiler, the plan's counter of FLOPs and bytes, the search for the
// first non-finite value.
class OpObserver {
 public:
  virtual ~OpObserver() = default;
  // After the forward (or backward) of `name`; flops and bytes are what its limit is computed from. A
  // backward that writes several gradients is told of each; the first call carries the cost.
  virtual void on_op(const char* name, bool backward, const Tensor& result, double flops, double bytes) = 0;
};

class Context {
 public:
  Context(backend::Stream& stream, Allocator& allocator, DType compute)
      : stream_(stream), allocator_(allocator), compute_(compute) {}

  backend::Stream& stream() { return stream_; }
  Allocator& allocator() { return allocator_; }
  Device device() const { return allocator_.device(); }
  // Type of activations: F32 or BF16.
  DType compute() const { return compute_; }

  Tensor empty(const Shape& shape, DType dtype, std::string_view name) {
    return Tensor::empty(allocator_, shape, dtype, name);
  }
  Tensor empty_like(const Tensor& t, std::string_view name) { return empty(t.shape(), t.dtype(), name); }

  // Null: nothing is differentiated (inference).
  Tape* tape() { return tape_; }
  void set_tape(Tape* tape) { tape_ = tape; }
  // Nothing here will ever be differentiated: kernels of their own (weight_matvec) may serve.
  bool inference() const { return tape_ == nullptr && !will_recompute; }
  // Should an operation with these inputs record itself?
  bool differentiates(std::initializer_list<const Variable*> inputs) const;
  // The result of an operation: with a fresh slot when `differentiated`.
  Variable result(Tensor value, bool differentiated) const;
  std::shared_ptr<GradSlot> new_slot(const Shape& shape, DType dtype) const;

  Checkpointing checkpointing = Checkpointing::kNone;
  bool training = false;        // dropout is on
  bool lazy = false;            // inside a recomputed forward: values that nobody reads are not computed
  bool will_recompute = false;  // no tape now, but backward will run this again: same kernels as under a tape
  uint64_t seed = 0, step = 0;  // name dropout's random numbers, with the layer's own stream id
  // Text is written: nothing is planned, products may round inputs (rounded_product). Null otherwise.
  backend::GroupedWeights* generation = nullptr;
  std::vector<AdapterSpan> adapters;  // empty: no adapter anywhere
  OpObserver* observer = nullptr;
  int64_t layer = -1;  // the block that runs, as models set it; for messages

  void observe(const char* name, bool backward, const Tensor& result, double flops = 0, double bytes = 0) {
    if (observer != nullptr) observer->on_op(name, backward, result, flops, bytes);
  }

 private:
  backend::Stream& stream_;
  Allocator& allocator_;
  DType compute_;
  Tape* tape_ = nullptr;
};

// Runs with no tape while it lives.
class NoGrad {
 public:
  explicit NoGrad(Context& cx) : cx_(cx), tape_(cx.tape()) { cx.set_tape(nullptr); }
  ~NoGrad() { cx_.set_tape(tape_); }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  Context& cx_;
  Tape* tape_;
};

}  // namespace nibble::autograd

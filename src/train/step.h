// One micro-step: forward, loss and gradients of one packed stream. The plan runs exactly this on the meta
// device; the trainer runs it on the real one, every allocation served by the planned arena.
#pragma once
#include <vector>

#include "data/steps.h"
#include "models/model.h"
#include "train/recipe.h"

namespace nibble::train {

using autograd::Checkpointing;
using autograd::Context;

Checkpointing checkpointing_named(const std::string& name);
const char* checkpointing_name(Checkpointing policy);

// The adapter that a run trains.
inline constexpr int kAdapter = 0;

// Makes the model trainable as the recipe says: a fresh adapter, the one under `adapter:`, or every weight;
// beside an adapter the head of a classifier. Returns the adapter's configuration (empty for method full). On
// the meta device no values are read.
io::AdapterConfig make_trainable(models::Model& model, const Recipe& recipe, Allocator& allocator);
// The trainable parameters in checkpoint order, each with its gradient buffer.
std::vector<autograd::Parameter*> trainable_parameters(models::Model& model, const Recipe& recipe,
                                                       Allocator& allocator);

// The most a micro-batch can be: what a plan is made for. Every real one fits inside.
struct StepShape {
  int64_t tokens = 0;         // of the stream, an encoder–decoder's decoder's
  int64_t sequences = 0;      // segments in it
  int64_t source_tokens = 0;  // of the encoder's stream
  int64_t longest = 0;        // of one segment; 0: as long as the stream
  int64_t labels = 0;         // most of a micro-batch; 0: every token
  int64_t all_tokens() const { return tokens + source_tokens; }
  int64_t all_labels() const { return labels > 0 ? labels : tokens; }
};

// Rows of the head's logits that are made at a time: 48 MB of them, or up to 96 MB, for which the head is
// packed half as often, while they are at most half of the tokens; never more than there are labels.
int64_t head_chunk_rows(int64_t vocab, const StepShape& shape);

struct MicroResult {
  double loss_sum =
      0;  // Σ -log p over trained tokens (of a classifier sequences; or squared errors), added in order
  int64_t trained = 0;
};
// kTrain adds the gradients of weight · loss_sum to the parameters; kScore makes the loss alone, without
// dropout. head_rows: head_chunk_rows() of the largest micro-batch. Every allocation comes from
// cx.allocator().
enum class Pass : uint8_t { kTrain, kScore };
MicroResult run_micro(const models::Model& model, Context& cx, const data::MicroBatch& batch, Pass pass,
                      float weight, bool with_adapter, int64_t head_rows);
// A micro-batch of that shape without content, every token (of a classifier: every sequence) with a label,
// for the meta device.
data::MicroBatch largest_micro(const StepShape& shape, models::Task task = models::Task::kCausalLm);

// FLOPs of the products of one optimizer step: all its tokens, of which source_tokens go through an encoder,
// through the linears (forward, input gradients; with
// method full weight gradients), the adapters, the head where a label is. Recomputation and attention do not
// count: they are what a limit is shared with, not what is asked for.
double step_flops(models::Model& model, const Recipe& recipe, int64_t tokens, int64_t source_tokens,
                  int64_t trained_tokens);

}  // namespace nibble::train

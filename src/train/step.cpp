#include "train/step.h"

#include <algorithm>
#include <numeric>

namespace nibble::train {
namespace {

class UseTape {
 public:
  UseTape(Context& cx, autograd::Tape* tape) : cx_(cx) { cx_.set_tape(tape); }
  ~UseTape() { cx_.set_tape(nullptr); }
  UseTape(const UseTape&) = delete;
  UseTape& operator=(const UseTape&) = delete;

 private:
  Context& cx_;
};

template <class T>
Tensor tensor_of(Context& cx, const std::vector<T>& values, DType dtype, const char* name) {
  Tensor t = cx.empty({static_cast<int64_t>(values.size())}, dtype, name);
  if (t.raw() != nullptr) std::copy(values.begin(), values.end(), t.data<T>());
  return t;
}

// Hidden states are let go of here, before backward begins.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
ops::HeadLoss head_loss(Context& cx, const models::Model& model, autograd::Variable h, const Tensor& rows,
                        const Tensor& labels, float weight, int64_t head_rows) {
  const ops::LinearArgs head = model.head(cx, h.size(0));
  if (labels.dtype() == kF32) return ops::head_squared_error(cx, h, head, rows, labels, weight);
  return ops::head_cross_entropy(cx, h, head, rows, labels, weight, head_rows);
}

}  // namespace

Checkpointing checkpointing_named(const std::string& name) {
  if (name == "none") return Checkpointing::kNone;
  if (name == "selective") return Checkpointing::kSelective;
  require(name == "block", "gradient_checkpointing", "is none, selective or block, not \"{}\"", name);
  return Checkpointing::kBlock;
}

const char* checkpointing_name(Checkpointing policy) {
  switch (policy) {
    case Checkpointing::kNone:
      return "none";
    case Checkpointing::kSelective:
      return "selective";
    case Checkpointing::kBlock:
      return "block";
  }
  return "?";
}

io::AdapterConfig make_trainable(models::Model& model, const Recipe& recipe, Allocator& allocator) {
  io::AdapterConfig config;
  if (model.config().reads_source()) config.task_type = "SEQ_2_SEQ_LM";
  if (!recipe.lora()) {
    const MemoryGroup group(allocator, "base");
    model.make_trainable(allocator);
    return config;
  }
  const MemoryGroup group(allocator, "adapter");
  const auto visit = [&](const nn::LinearVisitor& visitor) { model.visit_linears(visitor); };
  const auto heads = [&](const nn::LinearVisitor& visitor) { model.visit_heads(visitor); };
  const auto train_heads = [&] { heads([&](nn::Linear& head) { head.make_trainable(allocator); }); };
  if (recipe.adapter.empty()) {
    config.r = recipe.lora_r;
    config.lora_alpha = recipe.lora_alpha;
    config.lora_dropout = recipe.lora_dropout;
    config.use_rslora = recipe.use_rslora;
    config.target_modules = recipe.target_modules;
    config.base_model = recipe.model;
    nn::attach_lora(visit, config, kAdapter, static_cast<uint64_t>(recipe.seed), allocator);
    train_heads();
    return config;
  }
  const io::AdapterFile file = io::read_adapter(recipe.adapter);
  config = file.config;
  if (allocator.device() == Device::kMeta)
    nn::attach_lora(visit, config, kAdapter, 0, allocator);
  else
    nn::attach_adapter(visit, file, kAdapter, allocator, heads);
  train_heads();
  return config;
}

std::vector<autograd::Parameter*> trainable_parameters(models::Model& model, const Recipe& recipe,
                                                       Allocator& allocator) {
  std::vector<autograd::Parameter*> parameters;
  if (recipe.lora()) {
    model.visit_linears([&](nn::Linear& linear) {
      if (nn::LoraPair* pair = linear.adapter(kAdapter)) {
        parameters.push_back(&pair->a);
        parameters.push_back(&pair->b);
      }
    });
    model.visit_heads([&](nn::Linear& head) {
      for (autograd::Parameter* parameter : {head.weight_parameter(), head.bias_parameter()})
        if (parameter != nullptr) parameters.push_back(parameter);
    });
  } else {
    model.visit_parameters([&](autograd::Parameter& parameter) { parameters.push_back(&parameter); });
  }
  require(!parameters.empty(), "train", "nothing is trainable: target_modules matched no linear layer");
  for (autograd::Parameter* parameter : parameters) autograd::allocate_grad(*parameter, allocator);
  return parameters;
}

int64_t head_chunk_rows(int64_t vocab, const StepShape& shape) {
  constexpr int64_t kAlways = 48 << 20, kRows = 32;  // bytes that are taken without asking
  const int64_t always = kAlways / (4 * std::max<int64_t>(vocab, 1)),
                used = std::min(2 * always, shape.tokens / 2);
  const int64_t rows = std::clamp<int64_t>(std::max(always, used) / kRows * kRows, kRows, 512);
  return std::min(rows, std::max<int64_t>(shape.all_labels(), 1));
}

data::MicroBatch largest_micro(const StepShape& shape, models::Task task) {
  data::MicroBatch batch;
  batch.ids.assign(static_cast<size_t>(shape.tokens), 0);
  const bool whole = task == models::Task::kClassification || task == models::Task::kRegression;
  const auto labels = static_cast<size_t>(whole ? shape.sequences : shape.tokens);
  batch.labels.assign(labels, 0);
  batch.label_rows.resize(labels);
  std::iota(batch.label_rows.begin(), batch.label_rows.end(), 0);
  if (whole) {
    batch.targets.assign(labels, 0);
    batch.types.assign(batch.ids.size(), 0);
  }
  const auto divide = [&](int64_t tokens, std::vector<int32_t>& lengths) {
    for (int64_t i = 0; i < shape.sequences; ++i)
      lengths.push_back(
          static_cast<int32_t>((i + 1) * tokens / shape.sequences - i * tokens / shape.sequences));
  };
  divide(shape.tokens, batch.lengths);
  if (task == models::Task::kSeq2Seq) {
    batch.source_ids.assign(static_cast<size_t>(shape.source_tokens), 0);
    divide(shape.source_tokens, batch.source_lengths);
  }
  return batch;
}

MicroResult run_micro(const models::Model& model, Context& cx, const data::MicroBatch& batch, Pass pass,
                      float weight, bool with_adapter, int64_t head_rows) {
  const auto tokens = static_cast<int64_t>(batch.ids.size());
  const MemoryGroup group(cx.allocator(), "activations");
  autograd::Tape tape;
  const UseTape use(cx, pass == Pass::kTrain ? &tape : nullptr);
  cx.training = pass == Pass::kTrain;
  cx.adapters.clear();
  const auto source_tokens = static_cast<int64_t>(batch.source_ids.size());
  if (with_adapter) cx.adapters.push_back({0, std::max(tokens, source_tokens), kAdapter});

  nn::SequenceInput input = nn::packed_input(cx.allocator(), batch.ids, batch.lengths, batch.types);
  if (source_tokens > 0)
    nn::add_sources(cx.allocator(), input, batch.lengths, batch.source_ids, batch.source_lengths);
  const Tensor rows = tensor_of(cx, batch.label_rows, kI32, "label rows");
  const bool scores = model.config().task == models::Task::kRegression;
  const Tensor labels =
      scores ? tensor_of(cx, batch.targets, kF32, "targets") : tensor_of(cx, batch.labels, kI32, "labels");
  const ops::HeadLoss head =
      head_loss(cx, model, model.forward(cx, input, nullptr), rows, labels, weight, head_rows);
  if (pass == Pass::kTrain) {
    Tensor one = cx.empty({1}, kF32, "loss gradient");
    if (one.raw() != nullptr) one.data<float>()[0] = 1.0f;
    tape.backward(cx, head.loss, one);
  }

  MicroResult result;
  result.trained = batch.trained();
  if (head.token_losses.raw() != nullptr)
    for (int64_t i = 0; i < result.trained; ++i)
      result.loss_sum += static_cast<double>(head.token_losses.data<float>()[i]);
  return result;
}

double step_flops(models::Model& model, const Recipe& recipe, int64_t tokens, int64_t source_tokens,
                  int64_t trained_tokens) {
  const auto source = static_cast<double>(source_tokens), t = static_cast<double>(tokens) - source,
             labels = static_cast<double>(trained_tokens);
  const double passes = recipe.lora() ? 2 : 3;  // forward, input gradients (, weight gradients)
  double flops = (t * model.flops_per_token() + source * model.flops_per_token(true)) * passes;
  if (recipe.lora())
    model.visit_linears([&](nn::Linear& linear) {
      if (const nn::LoraPair* pair = linear.adapter(kAdapter))
        flops += 3 * 2 * (model.over_source(linear) ? source : t) *
                 static_cast<double>(pair->a.variable.value().numel() + pair->b.variable.value().numel());
    });
  return flops + labels * passes * 2 * static_cast<double>(model.config().outputs() * model.config().width);
}

}  // namespace nibble::train

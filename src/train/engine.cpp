#include "train/engine.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "backend/kernels/elementwise.h"
#include "base/file.h"
#include "base/process.h"
#include "io/bnb_checkpoint.h"
#include "io/peft_adapter.h"
#include "nn/loftq.h"
#include "text/export.h"
#include "train/loading.h"
#include "train/nonfinite.h"

namespace nibble::train {
namespace {

// Hands out the same block to every arena that asks: their steps never run at the same time.
class OneBlock : public Allocator {
 public:
  explicit OneBlock(std::shared_ptr<Buffer> block) : block_(std::move(block)) {}
  std::shared_ptr<Buffer> allocate(size_t bytes, std::string_view name) override {
    require(bytes <= block_->bytes, name, "{} bytes of a block of {}", bytes, block_->bytes);
    return block_;
  }
  Device device() const override { return block_->device; }

 private:
  std::shared_ptr<Buffer> block_;
};

quant::Weight as_bf16(const quant::Weight& w) {
  Tensor out = Tensor::empty(host_allocator(), w.shape, kBF16, "export");
  const Tensor from = w.dense;
  for (int64_t i = 0; i < from.numel(); ++i) out.data<BFloat16>()[i] = to_bf16(from.data<float>()[i]);
  return quant::dense_weight(out);
}

}  // namespace

Engine::Engine(const Prepared& prepared, StepPlan plan)
    : prepared_(prepared), plan_(std::move(plan)), allocator_(make_host_allocator()), stream_(*allocator_) {
  const Recipe& recipe = prepared.recipe;
  model_ = load_base(prepared.files, recipe, stream_);
  adapter_config_ = make_trainable(*model_, recipe, *allocator_);
  adapter_config_.base_model = recipe.model;
  if (recipe.init_lora_weights == "loftq") start_adapters();
  head_rows_ = head_chunk_rows(model_->config().outputs(), plan_.shape);
  parameters_ = trainable_parameters(*model_, recipe, *allocator_);
  optimizer_ = std::make_unique<Optimizer>(parameters_, optimizer_options(recipe), *allocator_);
  allocator_->trim();
  host_allocator().trim();
  // At once and whole: what grows request by request leaves its earlier sizes behind.
  const auto reserve = [&](int slot, int64_t bytes) {
    if (bytes > 0) stream_.scratch(slot, static_cast<size_t>(bytes));
  };
  reserve(backend::Stream::kWeightSlot, plan_.decoded_bytes);
  reserve(backend::Stream::kKernelSlot, plan_.workspace.kernel);
  reserve(backend::Stream::kKernelSlot2, plan_.workspace.kernel2);
  reserve(backend::Stream::kPartialSlot, plan_.workspace.partial);
  {
    const MemoryGroup group(*allocator_, "arena");
    block_ =
        std::make_unique<OneBlock>(allocator_->allocate(static_cast<size_t>(plan_.arena_bytes()), "arena"));
  }
  train_arena_ = std::make_unique<ArenaAllocator>(plan_.train_arena, *block_);
  eval_arena_ = std::make_unique<ArenaAllocator>(plan_.eval_arena, *block_);
  train_cx_ = std::make_unique<Context>(stream_, *train_arena_, compute_dtype(recipe));
  train_cx_->checkpointing = plan_.checkpointing;
  train_cx_->seed = static_cast<uint64_t>(recipe.seed);
  eval_cx_ = std::make_unique<Context>(stream_, *eval_arena_, compute_dtype(recipe));
  norm_scratch_ = Tensor::empty(*allocator_, {1}, kF32, "gradient norm");
}

Engine::~Engine() = default;

void Engine::start_adapters() {
  const auto visit = [&](const nn::LinearVisitor& visitor) { model_->visit_linears(visitor); };
  if (nn::start_at_quantization_error(visit, kAdapter, *prepared_.files.weights, stream_) == 0)
    throw UsageError(
        "init_lora_weights",
        fmt::format("loftq needs the weights that {} are made of, and {} holds no others; give the model "
                    "in 16 bits, or choose kaiming",
                    prepared_.recipe.quantize, prepared_.recipe.model));
}

void Engine::forget_gradients() {
  for (autograd::Parameter* parameter : parameters_) parameter->variable.slot()->filled = false;
}

double Engine::train_micro(const data::MicroBatch& batch, int64_t step, size_t micro, float weight) {
  if (batch.trained() == 0) return 0;
  train_arena_->begin_step();
  // With the seed this names the dropout of (step, micro-batch); accumulation is at most 65,535.
  train_cx_->step = (static_cast<uint64_t>(step) << 16) | micro;
  return run_micro(*model_, *train_cx_, batch, Pass::kTrain, weight, prepared_.recipe.lora(), head_rows_)
      .loss_sum;
}

StepOutcome Engine::step(const data::StepBatch& batch, int64_t step, int64_t update, double learning_rate) {
  require(batch.trained_tokens > 0, "train", "step {} has no trained token", step);
  const auto weight = static_cast<float>(1.0 / static_cast<double>(batch.trained_tokens));
  StepOutcome outcome;
  forget_gradients();
  double sum = 0;
  for (size_t m = 0; m < batch.micro.size(); ++m) {
    const double loss = train_micro(batch.micro[m], step, m, weight);
    sum += loss;
    if (!std::isfinite(loss)) {
      outcome.loss = sum / static_cast<double>(batch.trained_tokens);
      outcome.nonfinite = "the loss, first in " + find_nonfinite(batch, step, m, m + 1, weight);
      return outcome;
    }
    if (interrupted()) {
      outcome.interrupted = true;
      return outcome;
    }
  }
  outcome.loss = sum / static_cast<double>(batch.trained_tokens);
  for (autograd::Parameter* parameter : parameters_)
    if (!parameter->variable.slot()->filled) backend::fill(stream_, parameter->grad(), 0.0f);
  outcome.grad_norm = global_norm(stream_, parameters_, norm_scratch_);
  if (!std::isfinite(outcome.grad_norm)) {
    outcome.nonfinite =
        "the gradient norm, first in " + find_nonfinite(batch, step, 0, batch.micro.size(), weight);
    return outcome;
  }
  optimizer_->step(stream_, update, learning_rate,
                   clip_factor(outcome.grad_norm, prepared_.recipe.max_grad_norm));
  return outcome;
}

std::string Engine::find_nonfinite(const data::StepBatch& batch, int64_t step, size_t first, size_t last,
                                   float weight) {
  forget_gradients();
  for (size_t m = first; m < last; ++m) {
    NonfiniteSearch search(*train_cx_);
    train_cx_->observer = &search;
    train_micro(batch.micro[m], step, m, weight);
    train_cx_->observer = nullptr;
    if (search.found()) return fmt::format("{}, micro-batch {}", search.where(), m + 1);
  }
  for (autograd::Parameter* parameter : parameters_)
    if (first_nonfinite(parameter->grad()) >= 0) return "the gradient of " + parameter->name;
  return "a sum of finite values";
}

std::optional<double> Engine::evaluate(const std::vector<data::MicroBatch>& batches) {
  double sum = 0;
  int64_t trained = 0;
  for (const data::MicroBatch& batch : batches) {
    if (batch.trained() == 0) continue;
    if (interrupted()) return std::nullopt;
    eval_arena_->begin_step();
    const MicroResult result =
        run_micro(*model_, *eval_cx_, batch, Pass::kScore, 1.0f, prepared_.recipe.lora(), head_rows_);
    sum += result.loss_sum;
    trained += result.trained;
  }
  return trained > 0 ? sum / static_cast<double>(trained) : 0.0;
}

void Engine::save(const std::string& run_directory, const RunState& state) {
  save_state(run_directory, state, parameters_, *optimizer_, [&](const std::string& directory) {
    if (prepared_.recipe.lora()) export_to(directory, nullptr);
  });
}

RunState Engine::load(const std::string& checkpoint) {
  return load_state(checkpoint, parameters_, *optimizer_);
}

void Engine::export_to(const std::string& directory, const Json& manifest) {
  if (prepared_.recipe.lora()) {
    io::AdapterFile file = nn::adapter_file(
        [&](const nn::LinearVisitor& visit) { model_->visit_linears(visit); }, adapter_config_, kAdapter,
        [&](const nn::LinearVisitor& visit) { model_->visit_heads(visit); });
    file.manifest = manifest;
    // Written inside, then moved up: a killed process leaves nothing beside the directory, and in it only
    // what remove_leftovers() knows by its name.
    const std::filesystem::path inner = fmt::format("{}/adapter.tmp-{}", directory, ::getpid());
    io::write_adapter(inner.string(), file);
    for (const auto& entry : std::filesystem::directory_iterator(inner))
      std::filesystem::rename(entry.path(), std::filesystem::path(directory) / entry.path().filename());
    std::filesystem::remove(inner);
    sync_directory(directory);
    return;
  }
  std::vector<io::CheckpointItem> items;
  const Recipe& recipe = prepared_.recipe;
  const bool narrow = recipe.dtype == "bf16";
  model_->visit_weights([&](const std::string& name, const quant::Weight& w) {
    io::CheckpointItem item;
    item.name = name;
    item.shape = w.shape;
    item.format = &quant::dense_format();
    item.dtype = narrow ? kBF16 : kF32;
    item.make = [w, narrow] { return narrow && w.dense.dtype() == kF32 ? as_bf16(w) : w; };
    items.push_back(std::move(item));
  });
  // Written inside, then moved up over what an earlier step left; config.json, which makes it a model, is
  // last.
  const std::filesystem::path inner = fmt::format("{}/model.tmp-{}", directory, ::getpid());
  io::write_bnb_checkpoint(inner.string(), items, prepared_.config.source,
                           {text::export_tokenizer(recipe.model, recipe.tokenizer).files, {}}, {});
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(inner))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end(),
            [](const auto& a, const auto& b) { return (a == "config.json") < (b == "config.json"); });
  for (const std::string& name : names)
    std::filesystem::rename(inner / name, std::filesystem::path(directory) / name);
  std::filesystem::remove(inner);
  sync_directory(directory);
}

}  // namespace nibble::train

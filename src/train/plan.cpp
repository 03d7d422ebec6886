#include "train/plan.h"

#include <algorithm>
#include <cmath>

#include "backend/kernels/matmul.h"
#include "backend/weight_lease.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/text.h"
#include "train/loading.h"
#include "train/optimizer.h"

namespace nibble::train {
namespace {

int64_t bytes_of(const Tensor& t) { return t.defined() ? t.bytes() : 0; }

int64_t scale_bytes(const quant::Weight& w) {
  return bytes_of(w.absmax) + bytes_of(w.absmax_codes) + bytes_of(w.nested_absmax) + bytes_of(w.nested_map);
}

// Runs one micro-step on the meta device and turns its record into an arena.
ArenaPlan dry_run(const models::Model& model, const Recipe& recipe, const StepShape& shape,
                  Checkpointing checkpointing, Pass pass, backend::Stream& stream, StepCost& cost,
                  int64_t* logits) {
  const auto allocator = make_meta_allocator();
  Context cx(stream, *allocator, compute_dtype(recipe));
  cx.checkpointing = checkpointing;
  cx.observer = &cost;
  allocator->ledger().start_recording();
  run_micro(model, cx, largest_micro(shape, model.config().task), pass, 1.0f, recipe.lora(),
            head_chunk_rows(model.config().outputs(), shape));
  ArenaPlan plan = plan_arena(allocator->ledger().stop_recording());
  if (logits != nullptr)
    for (const auto& [name, bytes] : allocator->ledger().names_peak())
      if (name.second.find("logits") != std::string::npos) *logits += bytes;
  return plan;
}

// What kernels need beside the decoded weights that the meta stream saw.
backend::Workspace workspace_of(models::Model& model, const Recipe& recipe, const StepShape& shape,
                                backend::Stream& stream) {
  const DType compute = compute_dtype(recipe);
  const models::ModelConfig& config = model.config();
  const DType narrow = backend::product_dtype(Device::kCpu, compute);
  backend::Workspace all;
  const auto product = [&](const backend::ProductWorkspace& p) {
    all.include(backend::cpu_matmul_workspace(p));
  };
  const auto fixed_point = [&](const quant::Weight& w) {
    return backend::fixed_point_of(w, Device::kCpu, compute);
  };
  model.visit_linears([&](nn::Linear& linear) {
    const int64_t in = linear.in_features(), out = linear.out_features(),
                  tokens = model.over_source(linear) ? shape.source_tokens : shape.tokens;
    const nn::LoraPair* pair = linear.adapter(kAdapter);
    const int64_t r = pair == nullptr ? 0 : pair->a.variable.size(0);
    const backend::FixedPoint fixed = fixed_point(linear.weight());
    product({tokens, out, in, compute, narrow, compute, fixed, r});
    product({tokens, in, out, compute, narrow, compute, fixed, r});
    if (r > 0) {
      all.include(backend::cpu_thin_gradient_workspace(r, tokens));
    } else {
      product({out, in, tokens});
    }
  });
  const auto allocator = make_meta_allocator();
  Context cx(stream, *allocator, compute);
  const int64_t outputs = config.outputs(), rows = std::min(head_chunk_rows(outputs, shape), shape.tokens);
  const backend::FixedPoint fixed = fixed_point(*model.head(cx, shape.tokens).weight);
  product({rows, outputs, config.width, compute, narrow, kF32, fixed});
  product({rows, config.width, outputs, kF32, narrow, compute, fixed});
  all.include(backend::cpu_row_sums_workspace(shape.tokens, 1));  // of the losses
  if (!recipe.lora())
    all.include(
        backend::cpu_row_sums_workspace(std::max(shape.tokens, shape.source_tokens), 2 * config.width));
  for (const int64_t keys : {shape.tokens, shape.source_tokens})
    if (keys > 0)
      all.include(backend::cpu_attention_workspace(
          keys, shape.sequences, shape.longest > 0 ? std::min(shape.longest, keys) : keys,
          {.heads = config.heads, .kv_heads = config.kv_heads, .head_width = config.head_width},
          config.bias_buckets));
  model.visit_heads([&](const nn::Linear& head) {
    product({head.out_features(), head.in_features(), shape.sequences});
  });
  return all;
}

}  // namespace

int64_t StepPlan::total() const {
  int64_t sum = 0;
  for (const MemoryRow& row : rows) sum += row.bytes;
  return sum;
}

int64_t StepPlan::thread_bytes() const { return threads() * workspace.thread_bytes(); }

int64_t StepPlan::bytes(std::string_view row) const {
  for (const MemoryRow& r : rows)
    if (r.name == row) return r.bytes;
  return 0;
}

StepPlan plan_step(const io::ModelFiles& files, const Recipe& recipe, const StepShape& shape,
                   Checkpointing checkpointing, int64_t program) {
  const auto allocator = make_meta_allocator();
  backend::Stream stream(*allocator);
  const auto model = load_base(files, recipe, stream);
  StepPlan plan;
  plan.checkpointing = checkpointing;
  plan.shape = shape;

  int64_t scales = 0;
  model->visit_linears([&](nn::Linear& linear) {
    scales += scale_bytes(linear.weight());
    const backend::FixedPoint integers =
        backend::fixed_point_of(linear.weight(), Device::kCpu, compute_dtype(recipe));
    if (integers != backend::FixedPoint::kNone) plan.cost.use_fixed_point(integers);
  });
  make_trainable(*model, recipe, *allocator);
  const std::vector<autograd::Parameter*> parameters = trainable_parameters(*model, recipe, *allocator);
  for (const autograd::Parameter* parameter : parameters)
    plan.trainable += parameter->variable.value().numel();
  int64_t base = model->weight_bytes() - scales;
  if (recipe.lora())  // a head that is trained counts among what is trained
    model->visit_heads([&](nn::Linear& head) {
      base -= 4 * (head.weight().numel() + (head.has_bias() ? head.out_features() : 0));
    });
  OptimizerOptions options = optimizer_options(recipe);
  const Optimizer optimizer(parameters, options, *allocator);

  StepCost eval_cost;
  int64_t logits = 0;
  plan.train_arena = dry_run(*model, recipe, shape, checkpointing, Pass::kTrain, stream, plan.cost, &logits);
  plan.eval_arena = dry_run(*model, recipe, shape, checkpointing, Pass::kScore, stream, eval_cost, nullptr);
  if (program > 0)
    plan.rows.push_back(
        {"program", program, "code, libraries, tokenizer, encoded data, measuring the limit"});
  plan.rows.push_back({"base", base + allocator->ledger().names_peak()[{"weights", "rope_table"}],
                       recipe.lora() ? "frozen weights: codes, embeddings, norms" : "weights, f32"});
  const auto accumulation = recipe.gradient_accumulation_steps;
  plan.cost.repeat(accumulation);
  plan.cost.add_update(static_cast<double>(plan.trainable), static_cast<double>(optimizer.state_bytes()));
  plan.useful_flops = step_flops(*model, recipe, shape.all_tokens() * accumulation,
                                 shape.source_tokens * accumulation, shape.tokens * accumulation);

  const int64_t trained_bytes = plan.trainable * 4;
  if (scales > 0) plan.rows.push_back({"scales", scales, "of the quantized blocks"});
  if (recipe.lora())
    plan.rows.push_back(
        {"adapter", trained_bytes, fmt::format("{} parameters, f32", show_count(plan.trainable))});
  plan.rows.push_back({"gradients", trained_bytes, "f32"});
  plan.rows.push_back({"optimizer", optimizer.resident_bytes(),
                       optimizer.file_bytes() > 0
                           ? fmt::format("{}, {} of it in a file", recipe.optim,
                                         show_bytes(static_cast<double>(optimizer.file_bytes())))
                           : recipe.optim});
  plan.rows.push_back({"arena", plan.arena_bytes(),
                       fmt::format("one micro-step of {} tokens, checkpointing {}",
                                   show_count(shape.all_tokens()), checkpointing_name(checkpointing))});
  plan.arena_rows = {{"activations", plan.arena_bytes() - logits, "and their gradients"},
                     {"logits", logits, "one chunk of rows"}};
  plan.decoded_bytes = allocator->ledger().names_peak()[{"scratch", "scratch"}];
  plan.workspace = workspace_of(*model, recipe, shape, stream);
  plan.rows.push_back({"scratch", plan.decoded_bytes + plan.workspace.bytes() + plan.thread_bytes(),
                       fmt::format("decoded weights and operands of products, {} of them by thread",
                                   show_bytes(static_cast<double>(plan.thread_bytes())))});
  plan.page_file_bytes = optimizer.file_bytes();
  plan.checkpoint_bytes = optimizer.state_bytes() + trained_bytes;
  return plan;
}

std::string memory_table(const StepPlan& plan) {
  std::string text = "memory\n";
  const auto line = [&](const std::string& name, int64_t bytes, const std::string& about,
                        const char* indent) {
    text += fmt::format("  {}{:<{}} {:>10}  {}\n", indent, name, 12 - std::string_view(indent).size(),
                        show_bytes(static_cast<double>(bytes)), about);
  };
  for (const MemoryRow& row : plan.rows) {
    line(row.name, row.bytes, row.about, "");
    if (row.name == "arena")
      for (const MemoryRow& part : plan.arena_rows) line(part.name, part.bytes, part.about, "  ");
  }
  line("total", plan.total(), "", "");
  return text;
}

std::string time_line(const StepPlan& plan, int64_t accumulation, const MachineSpeed& speed) {
  const double seconds = plan.cost.seconds(speed);
  const int64_t tokens = plan.shape.all_tokens() * accumulation;
  return fmt::format("about {} a step of {} tokens, {} tok/s, when every token is learned\n",
                     show_seconds(seconds), show_count(tokens),
                     show_count(std::llround(static_cast<double>(tokens) / seconds)));
}

Json plan_json(const StepPlan& plan) {
  Json json = {{"checkpointing", checkpointing_name(plan.checkpointing)},
               {"tokens_per_micro_batch", plan.shape.all_tokens()},
               {"trainable_parameters", plan.trainable}};
  Json groups = Json::object(), arena = Json::object();
  for (const MemoryRow& row : plan.rows) groups[row.name] = row.bytes;
  for (const MemoryRow& row : plan.arena_rows) arena[row.name] = row.bytes;
  json["groups"] = std::move(groups);
  json["arena"] = std::move(arena);
  json["total_bytes"] = plan.total();
  json["page_file_bytes"] = plan.page_file_bytes;
  json["checkpoint_bytes"] = plan.checkpoint_bytes;
  json["step_flops"] = plan.cost.flops();
  return json;
}

}  // namespace nibble::train

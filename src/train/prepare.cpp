#include "train/prepare.h"

#include <algorithm>
#include <cmath>

#include "backend/kernel_slot.h"
#include "backend/limits.h"
#include "base/parallel.h"
#include "base/process.h"
#include "base/rng.h"
#include "base/text.h"
#include "data/glue.h"
#include "io/peft_adapter.h"
#include "models/classifier.h"
#include "train/loading.h"

namespace nibble::train {
namespace {

// Pages of the program and its libraries that first run in a step, and the plan itself.
constexpr int64_t kFirstStep = 4'000'000;

void require_known_ids(const std::vector<data::EncodedExample>& examples, int64_t vocab) {
  for (const auto& example : examples)
    for (const int32_t id : example.ids)
      require(id >= 0 && id < vocab, "train",
              "{} has token {}, the model knows {}; is this the model's own tokenizer?", example.source, id,
              vocab);
}

models::ModelConfig model_config(const io::ModelFiles& files, const Recipe& recipe) {
  const auto allocator = make_meta_allocator();
  backend::Stream stream(*allocator);
  return load_base(files, recipe, stream)->config();
}

// Does the model read whole texts and classify them? Where the recipe does not say, the model does.
void settle_task(Recipe& recipe, const io::ModelFiles& files, const models::ModelConfig& model) {
  const bool encoder = models::is_encoder(files.config), found = recipe.task == "auto";
  if (model.reads_source() != (recipe.task == "seq2seq") && !found)
    throw UsageError(
        "task",
        recipe.task + (model.reads_source()
                           ? " needs another model; " + recipe.model + " is an encoder–decoder, for seq2seq"
                           : " needs an encoder–decoder (T5); " + recipe.model + " is none"));
  if (model.reads_source()) {
    recipe.task = "seq2seq";
    return;
  }
  if (encoder && recipe.task == "causal_lm")
    throw UsageError("task", "causal_lm needs a model that writes; " + recipe.model +
                                 " is an encoder, for classification or regression");
  if (!encoder && recipe.classifies())
    throw UsageError("task",
                     recipe.task + " needs an encoder (BERT, RoBERTa); " + recipe.model + " predicts tokens");
  if (found) recipe.task = encoder ? "classification" : "causal_lm";
  if (recipe.classifies() && !recipe.was_given("packing") && (found || recipe.was_given("task")))
    recipe.packing = false;
}

// The encoder with the head that the data's task needs.
void add_head(Prepared& prepared, Recipe& recipe, bool task_was_found) {
  const data::GlueTask& task = data::glue_task(prepared.dataset.task);
  if (task_was_found) recipe.task = task.scores() ? "regression" : "classification";
  if (task.scores() != (recipe.task == "regression"))
    throw UsageError("task",
                     fmt::format("{} has {}; set task to {}", task.name, task.scores() ? "scores" : "classes",
                                 task.scores() ? "regression" : "classification"));
  prepared.files = models::as_classifier(std::move(prepared.files),
                                         std::max<int64_t>(1, static_cast<int64_t>(task.labels.size())),
                                         static_cast<uint64_t>(recipe.seed), task.labels);
  prepared.config = model_config(prepared.files, recipe);
}

// Checks the recipe and opens the model; no data yet.
Prepared open_base(Recipe& recipe) {
  check_recipe(recipe);
  set_threads(static_cast<int>(recipe.threads));
  backend::register_cpu_kernels();
  Prepared prepared;
  prepared.files = recipe.init == "random"
                       ? io::random_model(recipe.model, static_cast<uint64_t>(recipe.seed))
                       : io::open_model(recipe.model);
  if (!recipe.adapter.empty())
    io::require_same_base(io::read_adapter(recipe.adapter), recipe.adapter, prepared.files);
  prepared.config = model_config(prepared.files, recipe);
  return prepared;
}

}  // namespace

data::StepOptions Prepared::step_options() const {
  return {.batch_size = recipe.per_device_train_batch_size,
          .accumulation = recipe.gradient_accumulation_steps,
          .packing = recipe.packing,
          .group_by_length = recipe.group_by_length,
          .max_seq_length = max_seq_length(),
          .max_source_length = dataset.report.max_source_length,
          .seed = static_cast<uint64_t>(recipe.seed)};
}

data::StepStream Prepared::steps() const { return {dataset.train, dataset.train_weights, step_options()}; }

StepShape Prepared::shape() const {
  StepShape shape;
  shape.tokens = recipe.per_device_train_batch_size * max_seq_length();
  shape.source_tokens = recipe.per_device_train_batch_size * dataset.report.max_source_length;
  int64_t shortest = shape.tokens, shortest_source = std::max<int64_t>(shape.source_tokens, 1);
  for (const auto* part : {&dataset.train, &dataset.eval})
    for (const auto& example : *part) {
      shortest = std::min(shortest, example.length());
      shortest_source = std::min<int64_t>(shortest_source, example.source_tokens);
      shape.longest = std::max<int64_t>({shape.longest, example.length(), example.source_tokens});
    }
  shape.sequences = shape.tokens / std::max<int64_t>(shortest, 1);
  if (shape.source_tokens > 0)
    shape.sequences = std::min(shape.sequences, shape.source_tokens / std::max<int64_t>(shortest_source, 1));
  if (!dataset.train.empty()) {
    const data::StepStream stream = steps();
    // Later epochs have hardly more, and a micro-batch with more takes one chunk of logits more.
    shape.labels = stream.most_labels(std::min(total_steps(stream), 4 * stream.steps_per_epoch()));
    for (const auto& batch : data::sequential_batches(dataset.eval, shape.tokens, shape.source_tokens))
      shape.labels = std::max(shape.labels, batch.trained());
  }
  return shape;
}

int64_t Prepared::total_steps(const data::StepStream& stream) const {
  if (recipe.max_steps > 0) return recipe.max_steps;
  const double steps =
      std::ceil(recipe.num_train_epochs * static_cast<double>(stream.steps_per_epoch()) - 1e-9);
  return std::max<int64_t>(static_cast<int64_t>(steps), 1);
}

Prepared prepare(Recipe recipe) {
  Prepared prepared = open_base(recipe);
  const bool task_was_found = recipe.task == "auto";
  settle_task(recipe, prepared.files, prepared.config);
  prepared.tokenizer = text::load_tokenizer(recipe.tokenizer.empty() ? recipe.model : recipe.tokenizer);
  const bool pairs = prepared.config.reads_source();
  const data::Encoder encoder(prepared.tokenizer,
                              pairs ? nullptr : data::training_template(*prepared.tokenizer),
                              recipe.split_special_tokens, prepared.config.decoder_start());
  data::DataOptions options;
  options.train = recipe.data;
  options.eval = recipe.eval_data;
  options.eval_fraction = recipe.eval_fraction;
  options.max_seq_length = recipe.max_seq_length;
  options.source_max_length = recipe.source_max_length;
  options.target_max_length = recipe.target_max_length;
  options.context = prepared.config.max_positions;
  options.overlong = data::parse_overlong(recipe.overlong);
  options.train_on_source = recipe.train_on_source;
  options.classify = recipe.classifies();
  options.seq2seq = pairs;
  options.seed = static_cast<uint64_t>(recipe.seed);
  prepared.dataset = data::load_dataset(options, encoder);
  if (recipe.classifies()) add_head(prepared, recipe, task_was_found);
  require_known_ids(prepared.dataset.train, prepared.config.vocab);
  require_known_ids(prepared.dataset.eval, prepared.config.vocab);
  prepared.recipe = std::move(recipe);
  release_free_memory();
  // The first step is followed by a measurement of the limit, which comes on top; what writing a checkpoint
  // takes later is less.
  prepared.program_bytes = static_cast<int64_t>(resident_bytes()) +
                           backend::matmul_limit_bytes(compute_dtype(prepared.recipe)) + kFirstStep;
  return prepared;
}

Prepared prepare_synthetic(Recipe recipe) {
  recipe.data = {{.path = "synthetic"}};
  if (recipe.max_seq_length == 0) recipe.max_seq_length = 512;
  Prepared prepared = open_base(recipe);
  settle_task(recipe, prepared.files, prepared.config);
  if (recipe.classifies()) {
    prepared.files = models::as_classifier(std::move(prepared.files), 2, static_cast<uint64_t>(recipe.seed));
    prepared.config = model_config(prepared.files, recipe);
  }
  const Rng rng(static_cast<uint64_t>(recipe.seed), stream_id("synthetic"));
  const int64_t length = recipe.max_seq_length;
  for (int64_t i = 0; i < recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps; ++i) {
    data::EncodedExample example;
    const bool pairs = prepared.config.reads_source();  // of a source and a target, both that long
    if (pairs) example.source_tokens = static_cast<int32_t>(length);
    const int64_t tokens = pairs ? 2 * length + 1 : length;
    for (int64_t t = 0; t < tokens; ++t) {
      const float u = rng.uniform(static_cast<uint64_t>(i * tokens + t));
      example.ids.push_back(static_cast<int32_t>(u * static_cast<float>(prepared.config.vocab)));
      example.train.push_back(t > example.source_tokens);
    }
    if (recipe.classifies()) example.label = i % 2;
    prepared.dataset.train.push_back(std::move(example));
    prepared.dataset.train_weights.push_back(1);
  }
  prepared.dataset.report.max_seq_length = length;
  if (prepared.config.reads_source()) prepared.dataset.report.max_source_length = length;
  prepared.recipe = std::move(recipe);
  return prepared;
}

std::string show_gate(const Prepared& prepared, bool colour) {
  const data::DataReport& report = prepared.dataset.report;
  require(!prepared.dataset.train.empty(), "data", "there is no example to train on");
  int64_t trained = 0;
  for (const auto& example : prepared.dataset.train) trained += example.trained();
  require(trained > 0, "data",
          "no token of {} examples is trained; are the answers empty, or is the format another one (see "
          "`nibble inspect data`)?",
          prepared.dataset.train.size());
  std::string text;
  for (const auto& file : report.files)
    text += fmt::format("data    {}: {}, {} examples\n", file.path, file.format, show_count(file.examples));
  text += fmt::format(
      "        {} examples to train on, {} held out; {} tokens, {} {}; sequences of {}\n",
      show_count(static_cast<int64_t>(prepared.dataset.train.size())),
      show_count(static_cast<int64_t>(prepared.dataset.eval.size())), show_count(report.tokens),
      show_count(trained),
      prepared.recipe.classifies() ? "labels (" + prepared.dataset.task + ")" : "of them trained",
      report.max_source_length > 0 ? fmt::format("{} and sources of {}", show_count(report.max_seq_length),
                                                 show_count(report.max_source_length))
                                   : show_count(report.max_seq_length));
  const std::pair<int64_t, const char*> counts[] = {{report.overlong, "over-long"},
                                                    {report.truncated, "truncated"},
                                                    {report.source_cut, "prompts cut"},
                                                    {report.target_cut, "responses cut"},
                                                    {report.dropped, "dropped"},
                                                    {report.split, "split"},
                                                    {report.untrained, "untrained (left out)"},
                                                    {report.duplicates, "exact duplicates"},
                                                    {report.overlap, "also held out"}};
  std::string rest;
  for (const auto& [count, what] : counts)
    if (count > 0) rest += fmt::format("{}{} {}", rest.empty() ? "        " : ", ", show_count(count), what);
  if (!rest.empty()) text += rest + "\n";
  if (prepared.tokenizer)
    text += "first example, trained tokens marked:\n" +
            data::show_example(prepared.dataset.train[0], *prepared.tokenizer, colour) + "\n";
  return text;
}

}  // namespace nibble::train

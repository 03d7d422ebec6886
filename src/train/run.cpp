#include "train/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "backend/limits.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "base/text.h"
#include "io/train_state.h"
#include "train/display.h"
#include "train/engine.h"
#include "train/loading.h"
#include "train/manifest.h"
#include "train/report.h"
#include "train/schedule.h"

namespace nibble::train {
namespace {

constexpr int64_t kMostSkipsInARow = 20;

class Run {
 public:
  Run(const Prepared& prepared, const RunOptions& options);
  RunResult go();

 private:
  std::string file(const char* name) const { return recipe_.out + "/" + name; }
  void open_directory();
  void check_earlier_run(const Json& earlier);
  void start_or_resume();
  void one_step(int64_t step);
  void nonfinite(int64_t step, const StepOutcome& outcome);
  bool evaluation_due(int64_t step) const;
  EvalMetrics evaluate(int64_t step, double epoch);
  void record(const EvalMetrics& metrics);
  void make_up_evaluation();
  void save_checkpoint();
  void save_and_stop();
  void finish();

  const Prepared& prepared_;
  const Recipe& recipe_;
  RunOptions options_;
  Display display_;
  data::StepStream stream_;
  int64_t total_;
  Schedule schedule_;
  std::vector<data::MicroBatch> held_out_;
  Json manifest_;
  RunResult result_;
  std::unique_ptr<io::RunLock> lock_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<MetricsFile> metrics_;
  RunState state_;
  double epoch_ = 0, smooth_seconds_ = 0, training_seconds_ = 0, training_flops_ = 0;
  int64_t timed_tokens_ = 0, skips_in_a_row_ = 0;
  bool was_finished_ = false;  // the earlier run in `out`
};

Run::Run(const Prepared& prepared, const RunOptions& options)
    : prepared_(prepared),
      recipe_(prepared.recipe),
      options_(options),
      display_(options.quiet, stderr_is_terminal()),
      stream_(prepared.steps()),
      total_(prepared.total_steps(stream_)),
      schedule_(recipe_.lr_scheduler_type, recipe_.learning_rate, total_, recipe_.warmup_steps,
                recipe_.warmup_ratio) {
  result_.total_steps = total_;
  result_.out = recipe_.out;
}

// What an earlier run left in the directory allows this one only when asked.
void Run::check_earlier_run(const Json& earlier) {
  const auto checkpoints = io::list_checkpoints(recipe_.out);
  was_finished_ = earlier.is_object() && earlier.value("status", "") == "finished";
  if (earlier.is_null() && checkpoints.empty()) return;
  if (options_.resume) {
    require(!earlier.is_null(), recipe_.out,
            "has checkpoints but no {}, so it cannot be told what they belong to", kManifestFile);
    const std::vector<std::string> differences = manifest_differences(earlier, manifest_);
    require(differences.empty(), recipe_.out,
            "cannot go on from this run: {}; train into another `out`, or put things back",
            fmt::join(differences, "; "));
    return;
  }
  if (!options_.overwrite)
    throw UsageError(
        recipe_.out,
        fmt::format("holds {}; --resume goes on from it (with more max_steps if it is finished), --overwrite "
                    "starts anew, or choose another `out`",
                    was_finished_ ? "a finished run" : "an unfinished run"));
  for (const auto& checkpoint : checkpoints) std::filesystem::remove_all(checkpoint.path);
  for (const char* name : {"best", "recipe.yaml", kManifestFile, "metrics.jsonl", "loss.svg",
                           "adapter_config.json", "adapter_model.safetensors"})
    std::filesystem::remove_all(file(name));
}

// What a killed run was writing when it ended ("best.tmp-123"): with the lock held, nobody writes them now.
void remove_leftovers(const std::string& directory) {
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    const size_t at = name.rfind(".tmp-");
    if (at != std::string::npos && name.find_first_not_of("0123456789", at + 5) == std::string::npos)
      std::filesystem::remove_all(entry.path());
  }
}

void Run::open_directory() {
  lock_ = std::make_unique<io::RunLock>(recipe_.out);
  for (const std::string& place : {recipe_.out, file("best")})
    if (std::filesystem::is_directory(place)) remove_leftovers(place);
  manifest_ = make_manifest(prepared_);
  check_earlier_run(read_manifest(recipe_.out));
  const int64_t copies = recipe_.save_steps > 0 ? recipe_.save_total_limit + 1 : 2;
  const int64_t adapters = 3 * result_.plan.trainable * 4;
  io::require_free_disk(
      recipe_.out,
      result_.plan.page_file_bytes + copies * result_.plan.checkpoint_bytes + adapters + (16 << 20),
      "checkpoints, adapters and the state of the optimizer");
  write_file_atomic(file("recipe.yaml"), recipe_yaml(recipe_));
}

void Run::start_or_resume() {
  const auto newest = io::newest_checkpoint(recipe_.out);
  if (options_.resume && newest) {
    state_ = engine_->load(newest->path);
    io::prune_checkpoints(recipe_.out, recipe_.save_total_limit,
                          -1);  // a kill may have come before the last one's
    // One that was killed while it wrote its results has no step left, and still has to write them.
    require(state_.step < total_ || (state_.step == total_ && !was_finished_), recipe_.out,
            "has done all {} steps; give a larger max_steps or num_train_epochs to go on", state_.step);
    display_.text(fmt::format("going on from step {} of {}", state_.step, total_));
  } else if (options_.resume) {
    display_.text("no checkpoint yet: starting from the first step");
  }
  metrics_ = std::make_unique<MetricsFile>(file("metrics.jsonl"), state_.step);
  result_.steps = metrics_->earlier_steps();
  result_.evals = metrics_->earlier_evals();
  write_manifest(recipe_.out, manifest_);
}

RunResult Run::go() {
  display_.text(show_gate(prepared_, stderr_is_terminal()));
  result_.plan = choose_plan(prepared_.files, recipe_, prepared_.shape(), prepared_.program_bytes);
  display_.text(memory_table(result_.plan));
  open_directory();
  engine_ = std::make_unique<Engine>(prepared_, result_.plan);
  start_or_resume();
  if (!prepared_.dataset.eval.empty())
    held_out_ = data::sequential_batches(prepared_.dataset.eval, result_.plan.shape.tokens,
                                         result_.plan.shape.source_tokens);
  make_up_evaluation();
  for (int64_t step = state_.step + 1; step <= total_; ++step) one_step(step);
  finish();
  return std::move(result_);
}

void Run::one_step(int64_t step) {
  const data::StepBatch batch = stream_.step(step - 1);
  const double began = now_seconds(), rate = schedule_.rate(step);
  const StepOutcome outcome = engine_->step(batch, step, state_.updates + 1, rate);
  if (outcome.interrupted) save_and_stop();
  if (!outcome.nonfinite.empty()) nonfinite(step, outcome);
  const double seconds = now_seconds() - began;
  epoch_ = batch.epoch;
  state_.step = step;
  state_.tokens += batch.tokens;
  state_.trained_tokens += batch.trained_tokens;
  if (outcome.nonfinite.empty()) {
    ++state_.updates;
    skips_in_a_row_ = 0;
  }

  const double flops =
      step_flops(engine_->model(), recipe_, batch.tokens, batch.source_tokens, batch.trained_tokens);
  if (result_.seconds_to_first_step == 0) {
    result_.seconds_to_first_step = now_seconds() - options_.started;
    result_.matmul_limit = backend::matmul_limit_flops(compute_dtype(recipe_));
    release_free_memory();  // its operands, before a checkpoint is written on top of them
    smooth_seconds_ = seconds;
  } else {  // the first step pays for what is made once
    training_seconds_ += seconds;
    training_flops_ += flops;
    timed_tokens_ += batch.tokens;
    smooth_seconds_ = timed_tokens_ == batch.tokens ? seconds : 0.9 * smooth_seconds_ + 0.1 * seconds;
  }
  StepMetrics metrics{step,
                      batch.epoch,
                      outcome.loss,
                      rate,
                      outcome.grad_norm,
                      batch.tokens,
                      batch.trained_tokens,
                      static_cast<double>(batch.tokens) / seconds,
                      result_.matmul_limit > 0 ? flops / seconds / result_.matmul_limit : 0,
                      resident_bytes()};
  const bool logged = step % recipe_.logging_steps == 0 || step == total_;
  if (logged) metrics_->add(metrics);
  result_.steps.push_back(metrics);
  display_.step(metrics, total_, smooth_seconds_ * static_cast<double>(total_ - step), logged);

  if (evaluation_due(step)) record(evaluate(step, batch.epoch));
  if ((recipe_.save_steps > 0 && step % recipe_.save_steps == 0) || step == total_) save_checkpoint();
  if (interrupted() && step < total_) save_and_stop();
}

void Run::nonfinite(int64_t step, const StepOutcome& outcome) {
  display_.finish_line();
  const std::string what = fmt::format("step {}: not finite: {}", step, outcome.nonfinite);
  if (recipe_.on_nonfinite == "skip") {
    ++result_.skipped;
    log_warning("{}; the step is left out ({} so far)", what, result_.skipped);
    require(++skips_in_a_row_ < kMostSkipsInARow, "train",
            "{} steps in a row were not finite, the last one {}", kMostSkipsInARow, what);
    return;
  }
  std::string kept = "nothing was trained yet";
  if (state_.step > 0) {
    save_checkpoint();
    kept = fmt::format("the checkpoint of step {} in {} is good", state_.step, recipe_.out);
  }
  fail("train",
       "{}; {}. Try a lower learning_rate or dtype: f32, or on_nonfinite: skip to leave such steps out", what,
       kept);
}

bool Run::evaluation_due(int64_t step) const {
  const bool due = recipe_.eval_steps > 0 && step % recipe_.eval_steps == 0;
  return !held_out_.empty() && (due || step == total_);
}

// A run that was stopped while it evaluated has saved the step without its evaluation. The checkpoint comes
// before the line of metrics, so that a kill between them only repeats this.
void Run::make_up_evaluation() {
  if (state_.step == 0 || !evaluation_due(state_.step)) return;
  if (!result_.evals.empty() && result_.evals.back().step == state_.step) return;
  const EvalMetrics metrics = evaluate(state_.step, stream_.step(state_.step - 1).epoch);
  save_checkpoint();
  record(metrics);
}

EvalMetrics Run::evaluate(int64_t step, double epoch) {
  const std::optional<double> loss = engine_->evaluate(held_out_);
  if (!loss) save_and_stop();
  if (state_.best_step == 0 || *loss < state_.best_loss) {
    state_.best_step = step;
    state_.best_loss = *loss;
    Json manifest = manifest_;
    manifest["step"] = step;
    manifest["eval_loss"] = *loss;
    make_directories(file("best"));
    engine_->export_to(file("best"), manifest);
  }
  return {step, epoch, *loss};
}

void Run::record(const EvalMetrics& metrics) {
  metrics_->add(metrics);
  result_.evals.push_back(metrics);
  const std::string perplexity =
      recipe_.classifies() ? "" : fmt::format(", perplexity {:.3f}", std::exp(metrics.loss));
  display_.text(fmt::format("held out at step {}: loss {:.4f}{}", metrics.step, metrics.loss, perplexity));
}

void Run::save_checkpoint() {
  engine_->save(recipe_.out, state_);
  io::prune_checkpoints(recipe_.out, recipe_.save_total_limit, -1);
}

void Run::save_and_stop() {
  display_.finish_line();
  if (state_.step == 0) throw Interrupted("train", "interrupted before the first step; nothing was trained");
  save_checkpoint();
  throw Interrupted("train",
                    fmt::format("interrupted; step {} of {} is saved, `--resume` with out {} goes on from it",
                                state_.step, total_, recipe_.out));
}

void Run::finish() {
  manifest_["steps"] = state_.step;
  if (!result_.steps.empty()) manifest_["final_loss"] = result_.steps.back().loss;
  if (!result_.evals.empty()) manifest_["eval_loss"] = result_.evals.back().loss;
  engine_->export_to(recipe_.out, nullptr);
  write_file_atomic(file("loss.svg"), loss_svg(result_.steps, result_.evals, recipe_.out));
  manifest_["status"] = "finished";  // said last, when everything it speaks of is in place
  write_manifest(recipe_.out, manifest_);

  result_.best_step = state_.best_step;
  result_.best_loss = state_.best_loss;
  result_.seconds = now_seconds() - options_.started;
  if (training_seconds_ > 0) {
    result_.tokens_per_second = static_cast<double>(timed_tokens_) / training_seconds_;
    if (result_.matmul_limit > 0)
      result_.limit_share = training_flops_ / training_seconds_ / result_.matmul_limit;
  } else if (!result_.steps.empty()) {
    result_.tokens_per_second = result_.steps.back().tokens_per_second;
    result_.limit_share = result_.steps.back().limit_share;
  }
  result_.peak_rss_bytes = peak_resident_bytes();
  display_.text(loss_curve(result_.steps, std::min(terminal_width() - 14, 72), 8));
  if (result_.best_step > 0 && result_.best_step != state_.step)
    display_.text(fmt::format("the adapter of step {} had the lowest held-out loss ({:.4f}): {}/best",
                              result_.best_step, result_.best_loss, recipe_.out));
}

}  // namespace

RunResult run_training(const Prepared& prepared, const RunOptions& options) {
  return Run(prepared, options).go();
}

Json RunResult::to_json() const {
  Json losses = Json::array(), held_out = Json::array();
  for (const StepMetrics& s : steps) losses.push_back(s.loss);
  for (const EvalMetrics& e : evals) held_out.push_back({{"step", e.step}, {"loss", e.loss}});
  Json json = {{"steps", total_steps}, {"losses", losses}, {"eval", held_out}};
  json["final_loss"] = steps.empty() ? Json() : Json(steps.back().loss);
  json["best"] =
      best_step > 0 ? Json{{"step", best_step}, {"loss", best_loss}, {"path", out + "/best"}} : Json();
  json["skipped_steps"] = skipped;
  json["tokens_per_second"] = tokens_per_second;
  json["limit_share"] = limit_share;
  json["matmul_limit_flops"] = matmul_limit;
  json["seconds"] = seconds;
  json["seconds_to_first_step"] = seconds_to_first_step;
  json["peak_rss_bytes"] = peak_rss_bytes;
  json["plan"] = plan_json(plan);
  json["out"] = out;
  json["adapter"] = out;
  json["metrics"] = out + "/metrics.jsonl";
  json["loss_curve"] = out + "/loss.svg";
  return json;
}

}  // namespace nibble::train

// nibble eval glue: a trained classifier's score on a task of GLUE.
#include <filesystem>

#include "base/file.h"
#include "base/process.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "data/glue.h"
#include "eval/glue.h"

namespace nibble::cli {
namespace {

// Class names where there are classes, else the score.
Json shown(const data::GlueTask& task, double value) {
  return task.scores() ? Json(value) : Json(task.labels.at(static_cast<size_t>(value)));
}

void write_predictions(const std::string& path, const data::GlueTask& task, const eval::GlueReport& report) {
  AtomicFile file(path);
  for (const eval::GluePart& part : report.parts)
    for (size_t i = 0; i < part.predictions.size(); ++i)
      file.write(Json{{"file", part.path},
                      {"index", i},
                      {"prediction", shown(task, part.predictions[i])},
                      {"label", shown(task, part.labels[i])},
                      {"logits", part.logits[i]}}
                     .dump() +
                 "\n");
  file.commit();
}

Json report_json(const eval::GlueReport& report) {
  Json files = Json::array();
  for (const eval::GluePart& part : report.parts) {
    Json scores = Json::object();
    for (const auto& [name, value] : part.scores) scores[name] = finite_or_null(value);
    files.push_back({{"path", part.path},
                     {"examples", part.labels.size()},
                     {"truncated", part.truncated},
                     {"scores", scores}});
  }
  return {{"task", report.task}, {"files", files}, {"score", finite_or_null(report.score())}};
}

}  // namespace

int run_eval_glue(const Arguments& arguments) {
  ModelOptions model;
  eval::GlueOptions options;
  std::string task_name, data, split = "dev", predictions;
  bool json = false;
  Options cli("eval glue",
              "A classifier's score on a task of GLUE: accuracy, F1, Matthews, Pearson and Spearman.",
              "nibble eval glue --model minilm --adapter runs/sst2 --task sst2 --data glue/SST-2");
  model.declare(cli);
  cli.add("--task NAME", task_name, "cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte or wnli", true);
  cli.add("--data PATH", data, "a file, or the task's folder, in the layout it is published in", true);
  cli.add("--split NAME", split, "of a folder: train, dev or test");
  cli.add("--limit N", options.limit, "score at most N examples of each file; 0 is all");
  cli.add("--predictions FILE", predictions,
          "also write a JSON line per example: file, index, prediction, label, logits");
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "The model is an encoder with the adapter that `nibble train` made of it, or what method full wrote.\n"
      "JSON: {\"task\", \"files\": [{\"path\", \"examples\", \"truncated\", \"scores\"}], \"score\": the "
      "task's one number}.\nOf mnli there are two files, matched and mismatched; where a task has two "
      "measures their "
      "mean counts.");
  if (!cli.parse(arguments)) return 0;
  model.apply();
  const data::GlueTask& task = data::glue_task(task_name);
  const bool folder = std::filesystem::is_directory(data);
  const std::vector<std::string> files =
      folder ? data::glue_files(data, task.name, split) : std::vector{data};

  Session session(model);
  catch_interrupts();
  options.progress = live_progress("texts");
  const eval::GlueReport report =
      eval::glue(session.context(), session.model(), session.tokenizer(), task.name, files, options);
  if (!predictions.empty()) write_predictions(predictions, task, report);
  if (json) {
    print_json(report_json(report));
    return 0;
  }
  for (const eval::GluePart& part : report.parts) {
    std::string line = fmt::format("{}  {} examples", std::filesystem::path(part.path).filename().string(),
                                   show_count(static_cast<int64_t>(part.labels.size())));
    for (const auto& [name, value] : part.scores) line += fmt::format("   {} {:.4f}", name, value);
    if (part.truncated > 0) line += fmt::format("   {} cut to the context", show_count(part.truncated));
    print(line + "\n");
  }
  print(fmt::format("{} {:.4f}\n", report.task, report.score()));
  return 0;
}

}  // namespace nibble::cli

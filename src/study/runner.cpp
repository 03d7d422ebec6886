#include "study/runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/text.h"
#include "io/weights.h"
#include "study/measures.h"
#include "train/manifest.h"
#include "train/run.h"

namespace nibble::study {
namespace {

namespace fs = std::filesystem;
constexpr const char* kResults = "/results.jsonl";

Json to_json(const Cell& cell, const CellResult& r) {
  Json json = {{"key", cell.key}, {"cell", cell.label}, {"ok", r.ok}, {"seconds", r.seconds}};
  if (!r.ok) {
    json["error"] = r.error;
    return json;
  }
  json["value"] = r.value;
  json["bits_per_weight"] = r.bits_per_weight;
  json["weight_bytes"] = r.weight_bytes;
  if (!r.losses.empty()) json["losses"] = r.losses;
  return json;
}

// Finished cells of earlier runs. A last line that was cut short by a kill counts for nothing.
std::map<std::string, CellResult> earlier_results(const std::string& path) {
  std::map<std::string, CellResult> results;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (file.eof()) break;  // no line end: it was being written
    const Json json = parse_json(line, path);
    CellResult r;
    r.ok = json_get<bool>(json, "ok", path);
    if (!r.ok) continue;
    r.value = json_get<double>(json, "value", path);
    r.bits_per_weight = json_get<double>(json, "bits_per_weight", path);
    r.weight_bytes = json_get<double>(json, "weight_bytes", path);
    r.seconds = json_get<double>(json, "seconds", path);
    r.losses = json_get<std::vector<double>>(json, "losses", {}, path);
    results[json_get<std::string>(json, "key", path)] = r;
  }
  return results;
}

class ResultLog {
 public:
  explicit ResultLog(const std::string& path) : path_(path) {
    // A line without an end would swallow the next one.
    std::string whole = fs::exists(path) ? read_file(path) : "";
    if (!whole.empty() && whole.back() != '\n')
      write_file_atomic(path, whole.substr(0, whole.rfind('\n') + 1));
    file_.open(path, std::ios::app);
    require(file_.good(), path_, "cannot be written; choose another --out");
  }
  void add(const Json& line) {
    file_ << line.dump() << '\n' << std::flush;
    require(file_.good(), path_,
            "a result could not be written; is the disk full? Everything before it is kept");
  }

 private:
  std::string path_;
  std::ofstream file_;
};

class Study {
 public:
  Study(const Spec& spec, const RunnerOptions& options) : spec_(spec), options_(options) {}

  StudyResults run() {
    for (size_t e = 0; e < spec_.measures.size(); ++e) {
      const Measure& measure = spec_.measures[e];
      const MeasureKind& kind = measure_kind(measure.kind);
      for (size_t d = 0; d < std::max<size_t>(spec_.data.size(), 1); ++d)
        kind.check(measure_options(spec_, e, d), fmt::format("measure {}", measure.name));
      if (kind.needs_training && !spec_.trains)
        throw UsageError(
            "study", fmt::format("measure {} is about training; add `train:` to the study", measure.name));
    }
    make_directories(options_.out);
    const double began = now_seconds();
    try {
      run_all();
    } catch (const Interrupted&) {
      // What was in progress speaks of itself alone; a study goes on as a whole.
      throw Interrupted("study", fmt::format("interrupted {}; everything finished is kept in {}, the same "
                                             "command goes on from there",
                                             progress(), options_.out));
    }
    results_.seconds = now_seconds() - began;
    return std::move(results_);
  }

 private:
  std::string progress() const {
    if (results_.cells.empty()) return "while its bases were trained";
    const auto kept = std::count_if(results_.cells.begin(), results_.cells.end(),
                                    [&](const Cell& cell) { return results_.find(cell) != nullptr; });
    return fmt::format("with {} of {} results", kept, results_.cells.size());
  }

  void run_all() {
    for (const Named& base : spec_.prepare) prepare(base);
    make_cells();
    results_.by_key = earlier_results(options_.out + kResults);
    std::set<std::string> missing;
    for (const Cell& cell : results_.cells)
      if (results_.by_key.count(cell.key) == 0) missing.insert(cell.key);
    missing_ = static_cast<int64_t>(missing.size());
    ResultLog log(options_.out + kResults);
    // Cells that differ in the measure alone stand next to each other and share one subject.
    for (size_t begin = 0, end = 0; begin < results_.cells.size(); begin = end) {
      for (end = begin;
           end < results_.cells.size() && same_subject(results_.cells[begin], results_.cells[end]);)
        ++end;
      run_group(begin, end, log);
    }
  }

  static bool same_subject(const Cell& a, const Cell& b) {
    return a.model == b.model && a.data == b.data && a.variant == b.variant && a.seed == b.seed;
  }

  void say(const std::string& line) const {
    if (options_.progress) options_.progress(line);
  }

  std::string place(std::string path) const {
    if (path.starts_with("prepared/")) return options_.out + "/" + path;
    return path;
  }

  // A base that is trained once and then only used. When that fails, so do the cells that need it.
  void prepare(const Named& base) {
    train::Recipe recipe;
    for (const auto& [key, value] : base.keys) train::set_field(recipe, key, value);
    recipe.out = options_.out + "/prepared/" + base.name;
    if (finished(recipe.out)) return;
    say(fmt::format("training the base {}", base.name));
    try {
      const double began = now_seconds();
      const train::RunResult run = train_run(recipe);
      say(fmt::format("trained the base {}: loss {:.4f}, {}", base.name,
                      run.steps.empty() ? 0 : run.steps.back().loss, show_seconds(now_seconds() - began)));
    } catch (const Interrupted&) {
      throw;
    } catch (const std::exception& e) {
      unprepared_[recipe.out] = fmt::format("the base {} could not be trained: {}", base.name, e.what());
      say(unprepared_[recipe.out]);
    }
  }

  static bool finished(const std::string& run) {
    const Json manifest = train::read_manifest(run);
    return manifest.is_object() && manifest.value("status", "") == "finished";
  }

  train::RunResult train_run(const train::Recipe& recipe) const {
    const train::Prepared prepared = train::prepare(recipe);
    return train::run_training(prepared,
                               {.resume = true, .overwrite = false, .quiet = true, .started = now_seconds()});
  }

  train::Recipe recipe_of(const Cell& cell) const {
    train::Recipe recipe;
    const auto take = [&](const std::vector<std::pair<std::string, std::string>>& keys) {
      for (const auto& [key, value] : keys)
        train::set_field(recipe, key, key == "model" || key == "tokenizer" ? place(value) : value);
    };
    take(spec_.train);
    take(spec_.models[cell.model].keys);
    if (!spec_.data.empty()) take(spec_.data[cell.data].keys);
    take(spec_.variants[cell.variant].keys);
    if (cell.trains) train::set_field(recipe, "seed", std::to_string(cell.seed));
    train::settle_base(recipe);
    return recipe;
  }

  // "absent" for what is no file: whoever needs it will fail and say why.
  const std::string& file_hash(const std::string& path) const {
    std::string& hash = file_hashes_[path];
    if (hash.empty()) hash = fs::is_regular_file(path) ? hash_text(read_file(path)) : "absent";
    return hash;
  }

  // What a result depends on. Of a base that is measured as it is, training keys say nothing.
  Json decisive_keys(const train::Recipe& recipe, bool trains) const {
    Json all = train::recipe_json(recipe);
    all.erase("out");
    all.erase("threads");
    if (trains) {
      for (const auto* sources : {&recipe.data, &recipe.eval_data})
        for (const data::DataSource& source : *sources) all["files"].push_back(file_hash(source.path));
      return all;
    }
    Json kept;
    for (const char* key : {"model", "tokenizer", "quantize", "double_quant", "block_size", "dtype"})
      kept[key] = all[key];
    return kept;
  }

  void make_cells() {
    const size_t data = std::max<size_t>(spec_.data.size(), 1);
    for (size_t m = 0; m < spec_.models.size(); ++m)
      for (size_t d = 0; d < data; ++d)
        for (size_t v = 0; v < spec_.variants.size(); ++v)
          for (const int64_t seed : spec_.trains ? spec_.seeds : std::vector<int64_t>{0})
            for (size_t e = 0; e < spec_.measures.size(); ++e) {
              const bool trains =
                  spec_.trains && spec_.variants[v].trains && (spec_.data.empty() || spec_.data[d].trains);
              Cell cell{m, d, v, e, seed, trains, "", spec_.models[m].name};
              const Measure& measure = spec_.measures[e];
              if (!spec_.data.empty()) cell.label += " · " + spec_.data[d].name;
              cell.label += " · " + spec_.variants[v].name + " · " + measure.name;
              if (trains) cell.label += fmt::format(" · seed {}", seed);
              Json all = decisive_keys(recipe_of(cell), trains);
              const Json measured = measure_options(spec_, e, d);
              Json key = {{"recipe", all}, {"kind", measure.kind}, {"options", measured}, {"trains", trains}};
              for (const std::string& file : measure_kind(measure.kind).files(measured))
                key["files"].push_back(file_hash(file));
              key["model"] = model_hash(recipe_of(cell).model);
              cell.key = hash_text(key.dump());
              results_.cells.push_back(std::move(cell));
            }
  }

  // "absent" for a model that cannot be opened: its cells will fail and say why.
  std::string model_hash(const std::string& path) {
    std::string& hash = model_hashes_[path];
    if (!hash.empty()) return hash;
    try {
      hash = io::open_model(path).hash();
    } catch (const Error&) {
      hash = "absent";
    }
    return hash;
  }

  void run_group(size_t begin, size_t end, ResultLog& log) {
    std::vector<size_t> missing;
    for (size_t i = begin; i < end; ++i) {
      if (results_.by_key.count(results_.cells[i].key) > 0)
        ++results_.reused;
      else
        missing.push_back(i);
    }
    if (missing.empty()) return;
    const double began = now_seconds();
    std::unique_ptr<Subject> subject;
    std::vector<double> losses;
    for (const size_t i : missing) {
      if (interrupted()) throw Interrupted("study", "interrupted");
      const Cell& cell = results_.cells[i];
      const double start = now_seconds();
      CellResult result;
      try {
        if (!subject) subject = make_subject(cell, losses);
        result.value = measure_kind(spec_.measures[cell.measure].kind)
                           .measure(*subject, measure_options(spec_, cell.measure, cell.data));
        require(std::isfinite(result.value), cell.label, "the result is {}", result.value);
        result.weight_bytes = subject->weight_bytes();
        result.bits_per_weight = 8 * result.weight_bytes / subject->weights();
        result.losses = losses;
        result.ok = true;
      } catch (const Interrupted&) {
        throw;
      } catch (const std::exception& e) {
        result.error = e.what();
        ++results_.failed;
      }
      result.seconds = now_seconds() - (i == missing.front() ? began : start);
      log.add(to_json(cell, result));
      results_.by_key[cell.key] = result;
      ++results_.ran;
      spent_ += result.seconds;
      const auto left = static_cast<double>(--missing_) * spent_ / static_cast<double>(results_.ran);
      say(fmt::format("{}/{}  {}  {}  {} left", i + 1, results_.cells.size(), cell.label,
                      result.ok ? fmt::format("{:.4f}", result.value) : "failed: " + result.error,
                      show_seconds(left)));
    }
  }

  std::unique_ptr<Subject> make_subject(const Cell& cell, std::vector<double>& losses) const {
    train::Recipe recipe = recipe_of(cell);
    if (const auto it = unprepared_.find(recipe.model); it != unprepared_.end())
      fail(cell.label, "{}", it->second);
    if (!cell.trains) return std::make_unique<Subject>(recipe, "", std::nullopt);
    recipe.out = options_.out + "/runs/" + hash_text(decisive_keys(recipe, true).dump()).substr(0, 16);
    std::optional<double> held_out;
    if (finished(recipe.out)) {
      const Json manifest = train::read_manifest(recipe.out);
      if (manifest.contains("eval_loss")) held_out = json_get<double>(manifest, "eval_loss", recipe.out);
    } else {
      const train::RunResult run = train_run(recipe);
      for (const auto& step : run.steps) losses.push_back(step.loss);
      if (!run.evals.empty()) held_out = run.evals.back().loss;
    }
    return std::make_unique<Subject>(recipe, recipe.out, held_out);
  }

  const Spec& spec_;
  const RunnerOptions& options_;
  StudyResults results_;
  std::map<std::string, std::string> model_hashes_;
  mutable std::map<std::string, std::string> file_hashes_;
  std::map<std::string, std::string> unprepared_;  // by directory: why a base is missing
  int64_t missing_ = 0;                            // cells that still have to run
  double spent_ = 0;
};

}  // namespace

const CellResult* StudyResults::find(const Cell& cell) const {
  const auto it = by_key.find(cell.key);
  return it == by_key.end() || !it->second.ok ? nullptr : &it->second;
}

StudyResults run_study(const Spec& spec, const RunnerOptions& options) { return Study(spec, options).run(); }

}  // namespace nibble::study

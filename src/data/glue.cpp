#include "data/glue.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/text.h"
#include "data/table.h"

namespace nibble::data {
namespace {

namespace fs = std::filesystem;

// "MNLI_mismatched" -> "mnlimismatched": spellings differ in case and separators alone.
std::string plain(std::string_view name) {
  std::string out;
  for (const char c : lower_ascii(name))
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) out += c;
  return out;
}

const GlueTask* find_task(std::string_view name) {
  std::string wanted = plain(name);
  for (const char* ending : {"mismatched", "matched", "mm"})
    if (wanted.starts_with("mnli") && wanted.ends_with(ending)) wanted = "mnli";
  for (const GlueTask& task : glue_tasks())
    if (wanted == task.name) return &task;
  return nullptr;
}

// A task named by a folder or by the file itself: "…/SST-2/train.tsv", "sts-train.tsv".
const GlueTask* task_in_path(const std::string& path) {
  const fs::path p(path);
  std::vector<std::string> parts;
  for (const fs::path& part : p.parent_path()) parts.insert(parts.begin(), plain(part.string()));
  parts.insert(parts.begin(), plain(p.stem().string()));
  for (const std::string& part : parts)
    for (const GlueTask& task : glue_tasks())
      if (part == task.name || part.starts_with(task.name)) return &task;
  return nullptr;
}

struct Columns {
  const GlueTask* task = nullptr;
  int first = -1, second = -1, label = -1;  // -1: there is none
  bool header = true;
};

int column(const std::vector<std::string>& names, std::initializer_list<std::string_view> wanted) {
  for (const std::string_view name : wanted)
    for (size_t i = 0; i < names.size(); ++i)
      if (names[i] == name) return static_cast<int>(i);
  return -1;
}

// What the names of the columns alone say.
const GlueTask* task_of_names(const std::vector<std::string>& names) {
  const auto has = [&](std::string_view name) { return column(names, {name}) >= 0; };
  if (has("#1 String") && has("#2 String")) return find_task("mrpc");
  if (has("question1") && has("question2")) return find_task("qqp");
  if (has("question") && has("sentence")) return find_task("qnli");
  if (has("premise") && has("hypothesis")) return find_task("mnli");
  if (has("sentence1") && (has("gold_label") || has("sentence1_binary_parse"))) return find_task("mnli");
  if (has("sentence1") && (has("score") || has("old_index"))) return find_task("stsb");
  return nullptr;
}

Columns named_columns(const std::vector<std::string>& names, const GlueTask& task) {
  Columns c{&task, -1, -1, -1, true};
  c.first = column(names, {"sentence1", "premise", "question1", "question", "#1 String", "sentence"});
  if (task.second != nullptr)
    c.second = column(names, {"sentence2", "hypothesis", "question2", "#2 String", "sentence"});
  c.label = column(names, {"gold_label", "is_duplicate", "Quality", "score", "label"});
  if (c.first < 0 || (task.second != nullptr && (c.second < 0 || c.second == c.first))) c.first = -1;
  return c;
}

bool is_number(std::string_view text) {
  const std::string copy(trim(text));
  char* end = nullptr;
  const double value = std::strtod(copy.c_str(), &end);
  return !copy.empty() && *end == '\0' && std::isfinite(value);
}
bool is_binary(const std::string& text) { return text == "0" || text == "1"; }

// Tables without a row of names: CoLA's, STS-B's, and sentences with a 0 or 1 behind a tab.
Columns bare_columns(const std::vector<TableRow>& rows) {
  const size_t look = std::min<size_t>(rows.size(), 20);
  const auto all = [&](const auto& test) {
    return std::all_of(rows.begin(), rows.begin() + static_cast<ptrdiff_t>(look),
                       [&](const TableRow& r) { return test(r.fields); });
  };
  using Fields = std::vector<std::string>;
  if (all([](const Fields& f) { return f.size() == 4 && is_binary(f[1]) && (f[2].empty() || f[2] == "*"); }))
    return {find_task("cola"), 3, -1, 1, false};
  if (all([](const Fields& f) { return f.size() >= 7 && is_number(f[4]) && !is_number(f[0]); }))
    return {find_task("stsb"), 5, 6, 4, false};
  if (all([](const Fields& f) { return f.size() == 2 && is_binary(f[1]); }))
    return {find_task("sst2"), 0, -1, 1, false};
  return {};
}

Columns columns_of(const std::string& path, const std::vector<TableRow>& rows, std::string_view named) {
  const GlueTask* task = named.empty() ? nullptr : &glue_task(named);
  if (const Columns bare = bare_columns(rows); bare.task != nullptr && (task == nullptr || task == bare.task))
    return bare;
  const std::vector<std::string>& names = rows[0].fields;
  if (task == nullptr) task = task_of_names(names);
  const bool sentence = column(names, {"sentence"}) >= 0 && column(names, {"label", "index"}) >= 0;
  const bool pair = column(names, {"sentence1"}) >= 0 && column(names, {"sentence2"}) >= 0;
  if (task == nullptr && (sentence || pair)) task = task_in_path(path);
  if (task == nullptr && sentence) task = find_task("sst2");
  if (task == nullptr) {
    if (pair)
      fail(path,
           "could be any of GLUE's tasks on two sentences; say which with format: glue:rte, glue:wnli, "
           "glue:mrpc or "
           "glue:stsb");
    return {};
  }
  const Columns c = named_columns(names, *task);
  require(c.first >= 0 || named.empty(), path, "its columns ({}) do not hold the texts of {}",
          fmt::join(names, ", "), task->name);
  return c.first >= 0 ? c : Columns{};
}

double label_of(const GlueTask& task, const Json& value, const std::string& source) {
  if (value.is_null()) return -1;
  const std::string text(trim(value.is_string() ? value.get<std::string>() : value.dump()));
  const auto range = [&] {
    return task.scores() ? std::string("a score from 0 to 5")
                         : fmt::format("0 to {} or {}", task.labels.size() - 1, fmt::join(task.labels, ", "));
  };
  for (size_t i = 0; i < task.labels.size(); ++i)
    if (text == task.labels[i]) return static_cast<double>(i);
  require(is_number(text), source, "\"{}\" is no label of {}; expected {}", text, task.name, range());
  const double number = std::strtod(text.c_str(), nullptr);
  if (number == -1) return -1;  // how exports mark test splits
  const bool inside = task.scores() ? number >= 0 && number <= 5
                                    : number == std::floor(number) && number >= 0 &&
                                          number < static_cast<double>(task.labels.size());
  require(inside, source, "label {} is outside the range of {}; expected {}", text, task.name, range());
  return number;
}

}  // namespace

std::span<const GlueTask> glue_tasks() {
  static const GlueTask kTasks[] = {
      {"cola", {"unacceptable", "acceptable"}, "sentence", nullptr},
      {"sst2", {"negative", "positive"}, "sentence", nullptr},
      {"mrpc", {"not_equivalent", "equivalent"}, "sentence1", "sentence2"},
      {"stsb", {}, "sentence1", "sentence2"},
      {"qqp", {"not_duplicate", "duplicate"}, "question1", "question2"},
      {"mnli", {"entailment", "neutral", "contradiction"}, "premise", "hypothesis"},
      {"qnli", {"entailment", "not_entailment"}, "question", "sentence"},
      {"rte", {"entailment", "not_entailment"}, "sentence1", "sentence2"},
      {"wnli", {"not_entailment", "entailment"}, "sentence1", "sentence2"},
  };
  return kTasks;
}

const GlueTask& glue_task(std::string_view name) {
  if (const GlueTask* task = find_task(name)) return *task;
  std::vector<std::string> names;
  for (const GlueTask& task : glue_tasks()) names.emplace_back(task.name);
  throw UsageError("glue",
                   fmt::format("\"{}\" is not a task of GLUE; known are {}", name, fmt::join(names, ", ")));
}

std::optional<Records> glue_table(const std::string& path, std::string_view text, std::string_view task) {
  const std::vector<TableRow> rows = parse_table(path, text, '\t');
  if (rows.empty()) return std::nullopt;
  const Columns c = columns_of(path, rows, task);
  if (c.task == nullptr) return std::nullopt;
  Records out;
  for (size_t r = c.header ? 1 : 0; r < rows.size(); ++r) {
    const std::vector<std::string>& row = rows[r].fields;
    const auto needed = static_cast<size_t>(std::max({c.first, c.second, c.label})) + 1;
    require(row.size() >= needed, line_of(path, rows[r].line), "has {} columns; expected at least {}",
            row.size(), needed);
    Json record{{"glue", c.task->name}, {"first", row[static_cast<size_t>(c.first)]}};
    if (c.second >= 0) record["second"] = row[static_cast<size_t>(c.second)];
    if (c.label >= 0) record["label"] = row[static_cast<size_t>(c.label)];
    out.records.push_back(std::move(record));
    out.sources.push_back(line_of(path, rows[r].line));
  }
  require(!out.records.empty(), path, "is an empty split of {}: there is no row", c.task->name);
  return out;
}

bool is_glue_record(const Json& r) {
  if (!r.is_object()) return false;
  if (r.contains("glue")) return true;
  const auto text = [&](const char* key) { return r.contains(key) && r[key].is_string(); };
  return r.contains("label") &&
         (text("sentence") || (text("sentence1") && text("sentence2")) ||
          (text("question1") && text("question2")) || (text("premise") && text("hypothesis")));
}

GlueExample glue_record(const Json& record, std::string_view task, const std::string& source,
                        const GlueTask*& found) {
  require(record.is_object(), source, "expected an object, got {}", record.type_name());
  GlueExample example;
  example.source = source;
  if (record.contains("glue")) {
    found = &glue_task(json_get<std::string>(record, "glue", source));
    example.first = json_get<std::string>(record, "first", source);
    example.second = json_get<std::string>(record, "second", "", source);
  } else {
    std::vector<std::string> names;
    for (const auto& [key, value] : record.items()) names.push_back(key);
    found = task.empty() ? task_of_names(names) : &glue_task(task);
    require(found != nullptr, source,
            "could be any of several of GLUE's tasks; say which with format: glue:TASK");
    const Columns c = named_columns(names, *found);
    require(c.first >= 0, source, "its fields ({}) do not hold the texts of {}", fmt::join(names, ", "),
            found->name);
    example.first = json_get<std::string>(record, names[static_cast<size_t>(c.first)].c_str(), source);
    if (c.second >= 0)
      example.second = json_get<std::string>(record, names[static_cast<size_t>(c.second)].c_str(), source);
    if (c.label >= 0) example.label = label_of(*found, record[names[static_cast<size_t>(c.label)]], source);
    return example;
  }
  if (record.contains("label")) example.label = label_of(*found, record["label"], source);
  return example;
}

std::vector<GlueExample> read_glue(const std::string& path, std::string_view task) {
  const std::string suffix = lower_ascii(fs::path(path).extension().string());
  Records records;
  if (suffix == ".tsv" || suffix == ".txt") {
    auto table = glue_table(path, read_text(path), task);
    require(table.has_value(), path,
            "is no table of GLUE; expected columns such as sentence, label or sentence1, sentence2, label");
    records = std::move(*table);
  } else {
    records = read_records(path);
  }
  std::vector<GlueExample> examples;
  const GlueTask* wanted = task.empty() ? task_in_path(path) : &glue_task(task);
  for (size_t i = 0; i < records.records.size(); ++i) {
    const GlueTask* found = nullptr;
    examples.push_back(
        glue_record(records.records[i], wanted == nullptr ? "" : wanted->name, records.sources[i], found));
  }
  return examples;
}

std::vector<std::string> glue_files(const std::string& folder, std::string_view task,
                                    std::string_view split) {
  const GlueTask& t = glue_task(task);
  require(split == "train" || split == "dev" || split == "test", folder,
          "\"{}\" is no split; expected train, dev or test", split);
  std::vector<std::vector<std::string>> sets;
  const std::string s(split);
  if (std::string_view(t.name) == "mnli" && split != "train")
    sets.push_back({s + "_matched.tsv", s + "_mismatched.tsv"});
  for (const std::string& name :
       {s + ".tsv", "in_domain_" + s + ".tsv", "sts-" + s + ".tsv",
        "msr_paraphrase_" + std::string(split == "dev" ? "test" : s) + ".txt", s + ".jsonl", s + ".json"})
    sets.push_back({name});
  std::vector<std::string> looked;
  for (const auto& set : sets) {
    std::vector<std::string> files;
    for (const std::string& name : set) {
      const fs::path path = fs::path(folder) / name;
      std::error_code none;
      if (fs::is_regular_file(path, none)) files.push_back(path.string());
      looked.push_back(name);
    }
    if (files.size() == set.size()) return files;
  }
  fail(folder, "has no {} split of {}; looked for {}", split, t.name, fmt::join(looked, ", "));
}

std::string glue_answer(const GlueTask& task, double label) {
  if (!task.scores()) return task.labels.at(static_cast<size_t>(label));
  return fmt::format("{:.1f}", std::nearbyint(label * 5) / 5);
}

std::string glue_prompt(const GlueTask& task, const GlueExample& example) {
  if (task.second == nullptr) return fmt::format("{} {}: {}", task.name, task.first, example.first);
  // T5 names MNLI's hypothesis first.
  if (std::string_view(task.name) == "mnli")
    return fmt::format("mnli hypothesis: {} premise: {}", example.second, example.first);
  return fmt::format("{} {}: {} {}: {}", task.name, task.first, example.first, task.second, example.second);
}

}  // namespace nibble::data

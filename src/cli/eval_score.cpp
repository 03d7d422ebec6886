// nibble eval score: predictions against references, without a model.
#include <fmt/ranges.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "data/formats.h"
#include "eval/exact_match.h"
#include "eval/rouge.h"
#include "eval/scores.h"

namespace nibble::cli {
namespace {

struct ScoredRow {
  std::string prediction;
  std::vector<std::string> references;
  std::string source;
};

std::string as_text(const Json& value, const std::string& where, const std::string& field) {
  require(value.is_string() || value.is_number() || value.is_boolean(), where,
          "\"{}\" should be text or a number, got {}", field, value.type_name());
  return value.is_string() ? value.get<std::string>() : value.dump();
}

const Json& member(const Json& record, const std::string& field, const std::string& where) {
  require(record.is_object(), where, "expected an object with \"{}\", got {}", field, record.type_name());
  require(record.contains(field), where, "has no \"{}\"; name the field with --prediction or --reference",
          field);
  return record[field];
}

std::vector<ScoredRow> read_rows(const std::string& data, const std::string& references,
                                 const std::string& prediction_field, const std::string& reference_field) {
  const data::Records predicted = data::read_records(data);
  const data::Records wanted = references.empty() ? predicted : data::read_records(references);
  require(predicted.records.size() == wanted.records.size(), references,
          "has {} records, {} has {}; they are compared one by one", wanted.records.size(), data,
          predicted.records.size());
  std::vector<ScoredRow> rows;
  for (size_t i = 0; i < predicted.records.size(); ++i) {
    const std::string& where = predicted.sources[i];
    ScoredRow row{
        as_text(member(predicted.records[i], prediction_field, where), where, prediction_field), {}, where};
    const Json& reference = member(wanted.records[i], reference_field, wanted.sources[i]);
    if (reference.is_array())
      for (const Json& one : reference)
        row.references.push_back(as_text(one, wanted.sources[i], reference_field));
    else
      row.references.push_back(as_text(reference, wanted.sources[i], reference_field));
    require(!row.references.empty(), wanted.sources[i], "\"{}\" is an empty list", reference_field);
    rows.push_back(std::move(row));
  }
  return rows;
}

const std::string& only_reference(const ScoredRow& row) {
  require(row.references.size() == 1, row.source, "has {} references; this measure takes one",
          row.references.size());
  return row.references[0];
}

double number(const std::string& text, const std::string& where) {
  char* end = nullptr;
  const std::string trimmed(trim(text));
  const double value = std::strtod(trimmed.c_str(), &end);
  require(!trimmed.empty() && *end == '\0' && std::isfinite(value), where, "\"{}\" is not a number", text);
  return value;
}

struct Columns {
  std::vector<double> predictions, labels;
};
Columns numbers(const std::vector<ScoredRow>& rows) {
  Columns c;
  for (const ScoredRow& row : rows) {
    c.predictions.push_back(number(row.prediction, row.source));
    c.labels.push_back(number(only_reference(row), row.source));
  }
  return c;
}

// Classes are whatever words stand there; equal words are equal classes.
std::pair<std::vector<int64_t>, std::vector<int64_t>> classes(const std::vector<ScoredRow>& rows,
                                                              const std::string& positive) {
  std::map<std::string, int64_t, std::less<>> known{{positive, 1}};
  const auto id = [&](const std::string& name) {
    return known.try_emplace(std::string(trim(name)), static_cast<int64_t>(known.size()) + 1).first->second;
  };
  std::pair<std::vector<int64_t>, std::vector<int64_t>> out;
  for (const ScoredRow& row : rows) {
    out.first.push_back(id(row.prediction));
    out.second.push_back(id(only_reference(row)));
  }
  return out;
}

Json rouge_means(const std::vector<ScoredRow>& rows, bool stem) {
  eval::Rouge sum;
  for (const ScoredRow& row : rows) {
    const eval::Rouge r = eval::rouge(row.prediction, row.references, stem);
    for (eval::RougeScore eval::Rouge::*one : {&eval::Rouge::one, &eval::Rouge::two, &eval::Rouge::l})
      for (double eval::RougeScore::*part :
           {&eval::RougeScore::precision, &eval::RougeScore::recall, &eval::RougeScore::f})
        sum.*one.*part += r.*one.*part / static_cast<double>(rows.size());
  }
  const auto json = [](const eval::RougeScore& s) {
    return Json{{"precision", s.precision}, {"recall", s.recall}, {"f", s.f}};
  };
  return {{"rouge1", json(sum.one)}, {"rouge2", json(sum.two)}, {"rougeL", json(sum.l)}};
}

double match_share(const std::vector<ScoredRow>& rows) {
  int64_t right = 0;
  for (const ScoredRow& row : rows)
    for (const std::string& reference : row.references)
      if (trim(row.prediction) == trim(reference)) {
        ++right;
        break;
      }
  return static_cast<double>(right) / static_cast<double>(rows.size());
}

Json measure(const std::string& metric, const std::vector<ScoredRow>& rows, bool stem,
             const std::string& positive) {
  if (metric == "rouge") return rouge_means(rows, stem);
  if (metric == "match") return {{"match", match_share(rows)}};
  if (metric == "pearson" || metric == "spearman") {
    const Columns c = numbers(rows);
    return {{metric, finite_or_null(metric == "pearson" ? eval::pearson(c.predictions, c.labels)
                                                        : eval::spearman(c.predictions, c.labels))}};
  }
  if (metric.starts_with("glue-")) {
    const Columns c = numbers(rows);
    Json out = Json::object();
    for (const auto& [name, value] : eval::glue_scores(metric.substr(5), c.predictions, c.labels))
      out[name] = finite_or_null(value);
    return out;
  }
  const auto [predictions, labels] = classes(rows, positive);
  if (metric == "accuracy") return {{metric, eval::accuracy(predictions, labels)}};
  if (metric == "f1") return {{metric, eval::f1(predictions, labels)}};
  if (metric == "matthews") return {{metric, eval::matthews(predictions, labels)}};
  throw UsageError("--metric", fmt::format("\"{}\" is not a measure; known are rouge, match, accuracy, f1, "
                                           "matthews, pearson, spearman and glue-TASK",
                                           metric));
}

}  // namespace

int run_eval_score(const Arguments& arguments) {
  std::string data, references, prediction = "prediction", reference = "reference", positive = "1";
  std::vector<std::string> metrics;
  bool stem = true, json = false;
  Options cli("eval score", "Measures of a file of predictions; no model is loaded.",
              "nibble eval score --data answers.jsonl --metric rouge --metric match");
  cli.add("--data FILE", data, "records with predictions: .jsonl, .json, .csv or .tsv", true);
  cli.add("--references FILE", references,
          "records with the references, when they are in a file of their own");
  cli.add("--prediction FIELD", prediction, "where a record holds the prediction");
  cli.add("--reference FIELD", reference, "where a record holds the reference, or a list of them");
  cli.add("--metric NAME", metrics,
          "rouge, match, accuracy, f1, matthews, pearson, spearman, or glue-TASK (what that task is reported "
          "with); may be given several times; rouge if not given");
  cli.flag("--stem,!--no-stem", stem, "rouge: words are cut to their Porter stem");
  cli.add("--positive CLASS", positive, "f1: the class that counts");
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "JSON: {\"records\", and for each measure its values}; rouge has precision, recall and f of rouge1, "
      "rouge2 and rougeL.\nOf several references rouge takes the best, match any.");
  if (!cli.parse(arguments)) return 0;
  if (metrics.empty()) metrics = {"rouge"};

  const std::vector<ScoredRow> rows = read_rows(data, references, prediction, reference);
  Json document{{"records", rows.size()}};
  for (const std::string& metric : metrics) document.update(measure(metric, rows, stem, positive));
  if (json) {
    print_json(document);
    return 0;
  }
  for (const auto& [name, value] : document.items()) {
    if (value.is_object())
      print(fmt::format("{:<10} precision {:.4f}   recall {:.4f}   F {:.4f}\n", name,
                        value["precision"].get<double>(), value["recall"].get<double>(),
                        value["f"].get<double>()));
    else if (value.is_number_float())
      print(fmt::format("{:<10} {:.4f}\n", name, value.get<double>()));
    else
      print(fmt::format("{:<10} {}\n", name, value.is_null() ? "not defined" : value.dump()));
  }
  return 0;
}

}  // namespace nibble::cli

#include "study/measures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "eval/perplexity.h"

namespace nibble::study {
namespace {

void known_options(const Json& options, const std::vector<std::string>& known, const std::string& where) {
  for (const auto& [key, value] : options.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string near = nearest_name(key, known);
    throw UsageError(where, fmt::format("unknown option \"{}\"{}", key,
                                        near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near)));
  }
}

void needs(const Json& options, const char* key, const std::string& where) {
  if (!options.contains(key)) throw UsageError(where, fmt::format("needs the option \"{}\"", key));
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// ppl: documents are the file itself (.txt), the strings or `field`s of a JSON list, or of JSON lines.
std::vector<std::string> documents_of(const Json& options, const std::string& where) {
  const auto path = json_get<std::string>(options, "file", where),
             field = json_get<std::string>(options, "field", "text", where);
  const std::string text = read_file(path);
  std::vector<std::string> documents;
  const auto add = [&](const Json& record) {
    documents.push_back(record.is_string() ? record.get<std::string>()
                                           : json_get<std::string>(record, field.c_str(), path));
  };
  if (path.ends_with(".jsonl")) {
    for (const std::string& line : split(text, '\n'))
      if (!trim(line).empty()) add(parse_json(line, path));
  } else if (path.ends_with(".json")) {
    const Json list = parse_json(text, path);
    require(list.is_array(), path, "expected a JSON list of texts");
    for (const Json& record : list) add(record);
  } else {
    documents.push_back(text);
  }
  const auto limit = static_cast<size_t>(json_get<int64_t>(options, "documents", INT64_MAX, where));
  if (documents.size() > limit) documents.resize(limit);
  if (options.contains("replace"))
    for (const auto& [from, to] : options["replace"].items())
      for (std::string& document : documents) replace_all(document, from, to.get<std::string>());
  return documents;
}

void check_ppl(const Json& options, const std::string& where) {
  known_options(options, {"file", "field", "documents", "max_tokens", "replace", "context", "stride"}, where);
  needs(options, "file", where);
}

double measure_ppl(Subject& subject, const Json& options) {
  const std::string where = "measure ppl";
  std::vector<std::vector<int32_t>> ids;
  const auto most = static_cast<size_t>(json_get<int64_t>(options, "max_tokens", INT64_MAX, where));
  for (const std::string& document : documents_of(options, where)) {
    ids.push_back(subject.tokenizer().encode(document));
    if (ids.back().size() > most) ids.back().resize(most);
  }
  eval::PerplexityOptions how;
  how.context = json_get<int64_t>(options, "context", 0, where);
  how.stride = json_get<int64_t>(options, "stride", 0, where);
  return eval::perplexity(subject.context(), subject.model(), ids, how).ppl;
}

std::vector<std::string> one_file(const Json& options) { return {options["file"].get<std::string>()}; }

void check_held_out(const Json& options, const std::string& where) { known_options(options, {}, where); }

double measure_held_out(Subject& subject, const Json&) {
  require(subject.held_out_loss().has_value(), "measure held_out",
          "the run held nothing out; give eval_data or a positive eval_fraction");
  return std::exp(*subject.held_out_loss());
}

const MeasureKind kKinds[] = {
    {"ppl", false, check_ppl, one_file, measure_ppl},
    {"held_out", true, check_held_out, [](const Json&) { return std::vector<std::string>(); },
     measure_held_out},
};

}  // namespace

const MeasureKind& measure_kind(const std::string& kind) {
  std::vector<std::string> names;
  for (const MeasureKind& k : kKinds) {
    if (k.kind == kind) return k;
    names.emplace_back(k.kind);
  }
  throw UsageError("study",
                   fmt::format("no measure of kind \"{}\"; there are {}", kind, fmt::join(names, ", ")));
}

}  // namespace nibble::study

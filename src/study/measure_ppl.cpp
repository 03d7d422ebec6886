// Perplexity of the documents of a file.
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "eval/perplexity.h"
#include "study/measures.h"

namespace nibble::study {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// Documents are the file itself (.txt), the strings or `field`s of a JSON list, or of JSON lines.
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
  const auto skip = static_cast<size_t>(json_get<int64_t>(options, "skip", 0, where));
  documents.erase(documents.begin(),
                  documents.begin() + static_cast<ptrdiff_t>(std::min(skip, documents.size())));
  const auto limit = static_cast<size_t>(json_get<int64_t>(options, "documents", INT64_MAX, where));
  if (documents.size() > limit) documents.resize(limit);
  if (options.contains("replace"))
    for (const auto& [from, to] : options["replace"].items())
      for (std::string& document : documents) replace_all(document, from, to.get<std::string>());
  return documents;
}

void check(const Json& options, const std::string& where) {
  known_options(options, {"file", "field", "skip", "documents", "max_tokens", "replace", "context", "stride"},
                where);
  needs_option(options, "file", where);
  for (const char* key : {"skip", "documents", "max_tokens", "context", "stride"})
    whole_option(options, key, 0, 0, INT64_MAX, where);
}

double measure(Subject& subject, const Json& options) {
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

}  // namespace

const MeasureKind kPpl = {"ppl", false, check,
                          [](const Json& o) { return std::vector{o["file"].get<std::string>()}; }, measure};

}  // namespace nibble::study

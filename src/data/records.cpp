// The containers of data sets: JSONL, JSON, CSV, TSV, plain text.
#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "data/formats.h"
#include "data/glue.h"
#include "data/table.h"

namespace nibble::data {
namespace {

Records read_jsonl(const std::string& path, std::string_view text) {
  Records out;
  size_t line = 0;
  while (!text.empty()) {
    ++line;
    const size_t end = text.find('\n');
    const std::string_view row = trim(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (row.empty()) continue;
    out.records.push_back(parse_json(row, line_of(path, line)));
    out.sources.push_back(line_of(path, line));
  }
  return out;
}

// A list of records, an object with exactly one list in it ({"data": […]}), or one record.
Records read_json(const std::string& path, std::string_view text) {
  Json root = parse_json(text, path);
  if (root.is_object()) {
    const Json* list = nullptr;
    const auto formats = data_formats();
    if (std::none_of(formats.begin(), formats.end(), [&](const DataFormat& f) { return f.matches(root); }))
      for (const auto& [key, value] : root.items())
        if (value.is_array() && !value.empty() && value[0].is_object()) {
          require(list == nullptr, path,
                  "has several lists of records; keep one, or write a record a line (.jsonl)");
          list = &value;
        }
    if (list == nullptr) {
      Records one;
      one.records.push_back(std::move(root));
      one.sources.push_back(path);
      return one;
    }
    root = Json(*list);
  }
  require(root.is_array(), path, "expected a list of records, got {}", root.type_name());
  Records out;
  for (size_t i = 0; i < root.size(); ++i) {
    out.records.push_back(std::move(root[i]));
    out.sources.push_back(
        fmt::format("{}, record {}", std::filesystem::path(path).filename().string(), i + 1));
  }
  return out;
}

// The first row names the fields.
Records read_table(const std::string& path, std::string_view text, char separator) {
  const std::vector<TableRow> rows = parse_table(path, text, separator);
  Records out;
  if (rows.empty()) return out;
  const std::vector<std::string>& header = rows[0].fields;
  for (size_t i = 0; i < header.size(); ++i)
    require(!header[i].empty() && std::find(header.begin(), header.begin() + static_cast<int64_t>(i),
                                            header[i]) == header.begin() + static_cast<int64_t>(i),
            line_of(path, rows[0].line), "field {} of the first row is {}; it should name the fields", i + 1,
            header[i].empty() ? "empty" : "\"" + header[i] + "\" once more");
  for (size_t r = 1; r < rows.size(); ++r) {
    const std::vector<std::string>& row = rows[r].fields;
    require(row.size() == header.size(), line_of(path, rows[r].line),
            "has {} fields where the first row names {}", row.size(), header.size());
    Json record = Json::object();
    for (size_t i = 0; i < row.size(); ++i) record[header[i]] = row[i];
    out.records.push_back(std::move(record));
    out.sources.push_back(line_of(path, rows[r].line));
  }
  return out;
}

// FLAN's chain-of-thought tables: question, answer and rationale in three columns without names.
constexpr size_t kLook = 20;

bool is_rationale_table(const std::string& path, std::string_view text) {
  const std::vector<TableRow> rows =
      parse_table(path, text.substr(0, text.find('\n', std::min<size_t>(text.size(), 1 << 16))), '\t');
  const size_t n = std::min(kLook, rows.size());
  if (n == 0 || !std::all_of(rows.begin(), rows.begin() + static_cast<int64_t>(n),
                             [](const TableRow& r) { return r.fields.size() == 3; }))
    return false;
  // A row of names would be three short words; a rationale is a sentence.
  return std::all_of(rows.begin(), rows.begin() + static_cast<int64_t>(n), [](const TableRow& r) {
    return r.fields[2].find(' ') != std::string::npos && r.fields[0].find(' ') != std::string::npos;
  });
}

std::string unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool line = text[i] == '\\' && i + 1 < text.size() && text[i + 1] == 'n';
    out += line ? '\n' : text[i];
    i += line;
  }
  return out;
}

Records read_rationales(const std::string& path, std::string_view text) {
  Records out;
  for (const TableRow& row : parse_table(path, text, '\t')) {
    require(row.fields.size() == 3, line_of(path, row.line),
            "has {} columns; expected question, answer and rationale", row.fields.size());
    out.records.push_back({{"question", unescaped(row.fields[0])},
                           {"answer", unescaped(row.fields[1])},
                           {"rationale", unescaped(row.fields[2])}});
    out.sources.push_back(line_of(path, row.line));
  }
  return out;
}

// A split of Super-NaturalInstructions: names of tasks, one a line; their files are in ../../tasks.
constexpr int64_t kInstancesPerTask = 100;  // as Tk-Instruct takes them

bool is_task_list(const std::string& path) {
  const std::filesystem::path p(path);
  std::error_code none;
  return p.extension() == ".txt" && p.stem().string().ends_with("_tasks") &&
         std::filesystem::is_directory(p.parent_path() / ".." / ".." / "tasks", none);
}

Records read_task_list(const std::string& path, std::string_view text) {
  const std::filesystem::path tasks = std::filesystem::path(path).parent_path() / ".." / ".." / "tasks";
  Records out;
  size_t number = 0;
  for (const std::string& line : split(text, '\n')) {
    ++number;
    const std::string name(trim(line));
    if (name.empty()) continue;
    require(name.find_first_of("/\\") == std::string::npos, line_of(path, number),
            "\"{}\" is no name of a task", name);
    const std::string file = (tasks / (name + ".json")).lexically_normal().string();
    require(std::filesystem::exists(file), line_of(path, number),
            "there is no {}; the split needs its tasks beside it", file);
    out.records.push_back(parse_json(read_text(file), file));
    out.sources.push_back(name);
  }
  return out;
}

}  // namespace

std::string read_text(const std::string& path) {
  std::string text = read_file(path, uint64_t{16} << 30);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  require(text.size() < 2 || !(text[0] == '\x1f' && text[1] == '\x8b'), path,
          "is compressed with gzip; unpack it first (gunzip)");
  if (const size_t bad = find_invalid_utf8(text); bad != std::string::npos)
    fail(line_of(path, 1 + static_cast<size_t>(
                               std::count(text.begin(), text.begin() + static_cast<int64_t>(bad), '\n'))),
         "is not valid UTF-8 (byte {}); save the file as UTF-8", bad);
  return text;
}

void apply_format_argument(std::string_view name, const std::string& path, FormatOptions& options) {
  const size_t colon = name.find(':');
  const std::string_view format = name.substr(0, colon);
  if (is_task_list(path)) options.instances_per_task = kInstancesPerTask;
  if (colon == std::string_view::npos) return;
  const std::string_view argument = name.substr(colon + 1);
  if (format == "glue") {
    options.glue_task = glue_task(argument).name;
  } else if (format == "super_ni") {
    if (argument.size() != 1 || argument[0] < '0' || argument[0] > '9')
      throw UsageError(
          "format",
          fmt::format("\"{}\": expected the number of positive examples, super_ni:0 to super_ni:9", name));
    options.positive_examples = argument[0] - '0';
  } else {
    throw UsageError("format",
                     fmt::format("\"{}\": only glue and super_ni take something after a colon", name));
  }
}

Records read_records(const std::string& path, std::string_view format) {
  const std::string text = read_text(path);
  const std::string suffix = lower_ascii(std::filesystem::path(path).extension().string());
  const std::string_view glue = format.starts_with("glue:") ? format.substr(5) : std::string_view();
  const bool may_be_glue = (format == "auto" || format.starts_with("glue")) && !text.empty();
  Records out;
  const bool rationales =
      suffix == ".tsv" && (format == "flan" || (format == "auto" && is_rationale_table(path, text)));
  if (rationales) {
    out = read_rationales(path, text);
  } else if (suffix == ".csv" || suffix == ".tsv") {
    std::optional<Records> table;
    if (suffix == ".tsv" && may_be_glue) table = glue_table(path, text, glue);
    out = table ? std::move(*table) : read_table(path, text, suffix == ".csv" ? ',' : '\t');
  } else if (suffix == ".txt" &&
             (format.starts_with("super_ni") || (format == "auto" && is_task_list(path)))) {
    out = read_task_list(path, text);
  } else if (suffix == ".txt" && (format.starts_with("glue") || text.starts_with("Quality\t#1 ID"))) {
    auto table = glue_table(path, text, glue);
    require(table.has_value(), path, "is no table of GLUE");
    out = std::move(*table);
  } else if (suffix == ".txt" || suffix == ".md") {
    if (!trim(text).empty()) {
      out.records.emplace_back(text);
      out.sources.push_back(std::filesystem::path(path).filename().string());
    }
  } else if (suffix == ".jsonl" || suffix == ".ndjson") {
    out = read_jsonl(path, text);
  } else if (suffix == ".json") {
    // Some sets carry JSON lines in a .json file: then the first line is a whole object and another follows.
    const std::string_view body = trim(text);
    const size_t first = body.find('\n');
    const bool lines = body.starts_with('{') && first != std::string_view::npos &&
                       trim(body.substr(0, first)).ends_with('}') &&
                       trim(body.substr(first)).starts_with('{');
    out = lines ? read_jsonl(path, text) : read_json(path, text);
  } else {
    fail(path, "has no known suffix; expected .jsonl, .json, .csv, .tsv or .txt");
  }
  require(!out.records.empty(), path, "is empty: no record to train on");
  return out;
}

}  // namespace nibble::data

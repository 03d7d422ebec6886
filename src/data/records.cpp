// The containers of data sets: JSONL, JSON, CSV, TSV, plain text.
#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "data/formats.h"

namespace nibble::data {
namespace {

std::string at(const std::string& path, size_t line) {
  return fmt::format("{}:{}", std::filesystem::path(path).filename().string(), line);
}

Records read_jsonl(const std::string& path, std::string_view text) {
  Records out;
  size_t line = 0;
  while (!text.empty()) {
    ++line;
    const size_t end = text.find('\n');
    const std::string_view row = trim(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (row.empty()) continue;
    out.records.push_back(parse_json(row, at(path, line)));
    out.sources.push_back(at(path, line));
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

// RFC 4180: quotes around fields with separators, quotes or line ends; "" is a quote inside them. The first
// row names the fields.
Records read_table(const std::string& path, std::string_view text, char separator) {
  std::vector<std::string> header, row;
  Records out;
  size_t line = 1;
  std::string field;
  bool quoted = false, was_quoted = false;
  size_t row_line = 1;
  const auto end_row = [&] {
    row.push_back(std::move(field));
    field.clear();
    was_quoted = false;
    const bool blank = row.size() == 1 && row[0].empty();
    if (!blank && header.empty()) {
      header = row;
      for (size_t i = 0; i < row.size(); ++i)
        require(!row[i].empty() && std::find(row.begin(), row.begin() + static_cast<int64_t>(i), row[i]) ==
                                       row.begin() + static_cast<int64_t>(i),
                at(path, row_line), "field {} of the first row is {}; it should name the fields", i + 1,
                row[i].empty() ? "empty" : "\"" + row[i] + "\" once more");
    } else if (!blank) {
      require(row.size() == header.size(), at(path, row_line), "has {} fields where the first row names {}",
              row.size(), header.size());
      Json record = Json::object();
      for (size_t i = 0; i < row.size(); ++i) record[header[i]] = row[i];
      out.records.push_back(std::move(record));
      out.sources.push_back(at(path, row_line));
    }
    row.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (quoted) {
      if (c != '"') {
        field += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        field += '"';
        ++i;
      } else {
        quoted = false;
      }
    } else if (c == '"' && field.empty() && !was_quoted && separator == ',') {
      quoted = was_quoted = true;
    } else if (c == separator) {
      row.push_back(std::move(field));
      field.clear();
      was_quoted = false;
    } else if (c == '\n') {
      end_row();
      row_line = line;
    } else if (c != '\r') {
      field += c;
    }
  }
  require(!quoted, at(path, row_line), "a quote opens here that nothing closes");
  if (!field.empty() || !row.empty()) end_row();
  return out;
}

}  // namespace

Records read_records(const std::string& path) {
  std::string text = read_file(path, uint64_t{16} << 30);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  require(text.size() < 2 || !(text[0] == '\x1f' && text[1] == '\x8b'), path,
          "is compressed with gzip; unpack it first (gunzip)");
  if (const size_t bad = find_invalid_utf8(text); bad != std::string::npos)
    fail(at(path, 1 + static_cast<size_t>(
                          std::count(text.begin(), text.begin() + static_cast<int64_t>(bad), '\n'))),
         "is not valid UTF-8 (byte {}); save the file as UTF-8", bad);
  const std::string suffix = lower_ascii(std::filesystem::path(path).extension().string());
  Records out;
  if (suffix == ".csv" || suffix == ".tsv") {
    out = read_table(path, text, suffix == ".csv" ? ',' : '\t');
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

#include "data/table.h"

#include <filesystem>

#include "base/error.h"

namespace nibble::data {

std::string line_of(const std::string& path, size_t line) {
  return fmt::format("{}:{}", std::filesystem::path(path).filename().string(), line);
}

std::vector<TableRow> parse_table(const std::string& path, std::string_view text, char separator) {
  std::vector<TableRow> rows;
  TableRow row{{}, 1};
  std::string field;
  size_t line = 1;
  bool quoted = false, was_quoted = false;
  const auto end_field = [&] {
    row.fields.push_back(std::move(field));
    field.clear();
    was_quoted = false;
  };
  const auto end_row = [&] {
    end_field();
    if (row.fields.size() > 1 || !row.fields[0].empty()) rows.push_back(std::move(row));
    row = {{}, line};
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
      end_field();
    } else if (c == '\n') {
      end_row();
    } else if (c != '\r') {
      field += c;
    }
  }
  require(!quoted, line_of(path, row.line), "a quote opens here that nothing closes");
  if (!field.empty() || !row.fields.empty()) end_row();
  return rows;
}

}  // namespace nibble::data

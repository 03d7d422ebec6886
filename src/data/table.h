// Tables: comma- or tab-separated rows, with or without a row of names.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace nibble::data {

struct TableRow {
  std::vector<std::string> fields;
  size_t line;  // where it begins, from 1
};

// "alpaca.json:17", for messages to people.
std::string line_of(const std::string& path, size_t line);

// A text file, without its byte order mark. Errors: unreadable, compressed, invalid UTF-8 (line).
std::string read_text(const std::string& path);

// Rows of a table; blank lines are skipped. With commas quotes work as in RFC 4180: around fields with
// separators, quotes or line ends, "" being a quote inside them. With tabs a quote is a character like any
// other. Errors: Error{"file:line"} for a quote that nothing closes.
std::vector<TableRow> parse_table(const std::string& path, std::string_view text, char separator);

}  // namespace nibble::data

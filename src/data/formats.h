// The layouts data sets are published in: one file each (formats/<name>.cpp), one row each in
// formats/registry.cpp. docs/data.md lists them with source layout, prompt and what is learned. Containers:
// JSONL, JSON (a list, or an object with one list), CSV, TSV, plain .txt; GLUE's tables and FLAN's
// chain-of-thought tables, which have no row of names; a list of Super-NaturalInstructions' tasks.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/example.h"

namespace nibble::data {

struct DataFormat {
  const char* name;
  const char* about;  // source layout, prompt and what is trained, for docs and --help
  // Does this record look like mine? Asked in registry order on the first records of a file.
  bool (*matches)(const Json& record);
  // All records of one file → examples (OASST1 needs them together). Errors: Error{file:line} naming the
  // missing or wrong field.
  std::vector<Example> (*read)(const std::vector<Json>& records, const std::vector<std::string>& sources,
                               const struct FormatOptions& options);
};

struct FormatOptions {
  bool has_chat_template = true;  // false: alpaca and others use the paper's plain prompts as segments
  bool train_on_source = false;   // instructions are learned as well
  int64_t positive_examples = 2;  // super_ni: "super_ni:k"
  std::string glue_task = {};     // glue: "glue:rte"; empty: found
  bool classify = false;          // glue: texts with a label, not a prompt and an answer
  int64_t instances_per_task = INT64_MAX;  // super_ni: of each task when a split is read
};

// What a format's name says after a colon, set in the options. Errors: UsageError for what it cannot be.
void apply_format_argument(std::string_view name, const std::string& path, FormatOptions& options);

std::span<const DataFormat> data_formats();

// Records of a file with "file:line" of each. Errors: unreadable, empty, malformed JSON (line number),
// invalid UTF-8 (line), ragged CSV rows.
struct Records {
  std::vector<Json> records;
  std::vector<std::string> sources;
};
// Some layouts need to be named or recognised before the file can be read at all: tables without names (see
// glue.h), and splits of Super-NaturalInstructions, whose tasks are then read from ../../tasks.
Records read_records(const std::string& path, std::string_view format = "auto");

// The format of these records: `name`, or found by looking when it is "auto".
// Errors: none matches: the fields that were found and the layouts that are known.
const DataFormat& choose_format(const Records& records, std::string_view name, const std::string& path);

}  // namespace nibble::data

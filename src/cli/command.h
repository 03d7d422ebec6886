// What a command of the program is: one file per command, one row each in registry.cpp.
//
// A command declares its options once (Options, over CLI11) and gets help, checks and errors from that.
// Output: results go to standard output (exactly one JSON document with --json), everything else to standard
// error. Exit codes: 0 ok, 1 failed (Error), 2 wrong usage (UsageError), 130 interrupted (Interrupted);
// main() alone turns exceptions into them.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"

namespace nibble::cli {

// Options of one command. Each add() binds a variable whose present value is the default and is shown in
// --help.
class Options {
 public:
  Options(std::string command, std::string description, std::string example);
  ~Options();
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  // `names` as CLI11 reads them: "--model", "-o,--out", or a bare word for a positional; after a space what
  // the help calls the value: "--model PATH". A list as an option takes one value each time it is given.
  void add(const std::string& names, std::string& value, const std::string& help, bool required = false);
  void add(const std::string& names, int64_t& value, const std::string& help);
  void add(const std::string& names, double& value, const std::string& help);
  void add(const std::string& names, std::vector<std::string>& values, const std::string& help);
  void add(const std::string& names, std::optional<int64_t>& value, const std::string& help);
  void add(const std::string& names, std::optional<double>& value, const std::string& help);
  void add(const std::string& names, std::optional<std::string>& value, const std::string& help);
  // "--json" or "--double-quant,!--no-double-quant".
  void flag(const std::string& names, bool& value, const std::string& help);
  void flag(const std::string& names, std::optional<bool>& value, const std::string& help);
  // Text after the options in --help.
  void footer(const std::string& text);

  // Errors: UsageError (unknown option: the nearest is suggested; missing value; not a number). Returns false
  // when help was asked for and printed.
  bool parse(const std::vector<std::string>& arguments);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Options that mean the same in every command that loads a model.
struct ModelOptions {
  std::string model;                // --model PATH
  std::string tokenizer;            // --tokenizer PATH
  std::string adapter;              // --adapter DIR
  std::string quantize = "stored";  // --quantize FORMAT; stored: a quantized file as it is, a dense one dense
  bool double_quant = false;        // --double-quant / --no-double-quant
  int64_t block_size = 64;          // --block-size N
  std::string dtype = "bf16";       // --dtype bf16|f32
  std::string device = "auto";      // --device cpu|auto
  int64_t threads = 0;              // --threads N
  int64_t seed = 42;                // --seed N
  void declare(Options& options, bool with_adapter = true);
  // Checks the values and sets the number of threads. Errors: UsageError.
  void apply() const;
};

struct Command {
  const char* name;   // "eval ppl": words separated by spaces
  const char* about;  // one line for `nibble --help`
  int (*run)(const std::vector<std::string>& arguments);
};

// Every command, in the order of the help.
const std::vector<Command>& commands();

// For a `progress` of src/eval: "12 of 80 questions, 5 s left" on standard error, written over as work goes
// on. Empty where nobody looks, which is where standard error is no terminal. The clock starts now.
std::function<void(int64_t done, int64_t total)> live_progress(const char* what);

// Writes to standard output at once. False: nobody reads it any more (a closed pipe), which is no failure:
// stop quietly. Errors: Error{"standard output"} when it cannot be written for another reason (a full disk).
bool print(std::string_view text);
// Prints one JSON document to standard output. Invalid UTF-8 in strings becomes U+FFFD.
void print_json(const Json& document);
// JSON has no NaN (a correlation with a constant) and no infinity: null.
Json finite_or_null(double value);

}  // namespace nibble::cli

// Runs the built program and keeps what it wrote.
#pragma once
#include <string>
#include <vector>

namespace nibble::cli {

struct Ran {
  int code = -1;  // exit code, or 128 + signal
  std::string out, err;
};

// `input` is its standard input. Environment and working directory are those of the test.
Ran run_program(const std::vector<std::string>& arguments, const std::string& input = "");

// The same, sending SIGINT as soon as it has written `after` bytes to standard output.
Ran run_program_interrupted(const std::vector<std::string>& arguments, size_t after);
// … as soon as `word` stands in what it wrote to standard error.
Ran run_program_interrupted(const std::vector<std::string>& arguments, const std::string& word);

}  // namespace nibble::cli

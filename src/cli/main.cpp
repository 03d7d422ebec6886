// The program: finds the command, turns exceptions into exit codes.
#include <csignal>
#include <cstdio>
#include <new>

#include "backend/kernel_slot.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command.h"

namespace nibble::cli {
namespace {

constexpr int kOk = 0, kFailed = 1, kUsage = 2, kInterrupted = 130;

std::string command_lines(const std::string& prefix) {
  std::string lines;
  for (const Command& c : commands())
    if (std::string(c.name).starts_with(prefix)) lines += fmt::format("  {:<16} {}\n", c.name, c.about);
  return lines;
}

std::string program_help() {
  return "nibble: fine-tune language models on a frozen 4-bit base\n\nUsage: nibble COMMAND "
         "[OPTIONS]\n\nCommands:\n" +
         command_lines("") +
         "\nOptions:\n"
         "  -h, --help       this text; `nibble COMMAND --help` explains one command\n"
         "  --version        the version\n"
         "\nExample:\n"
         "  nibble generate --model model.gguf --chat --prompt \"What is a nibble?\"\n"
         "\nExit codes: 0 ok, 1 failed, 2 wrong usage, 130 interrupted\n";
}

const Command* find_command(const std::string& name) {
  for (const Command& c : commands())
    if (name == c.name) return &c;
  return nullptr;
}

bool is_group(const std::string& word) {
  for (const Command& c : commands())
    if (std::string(c.name).starts_with(word + " ")) return true;
  return false;
}

std::string group_help(const std::string& group) {
  return fmt::format("Usage: nibble {} COMMAND [OPTIONS]\n\nCommands:\n{}\nExample:\n  nibble {} --help\n",
                     group, command_lines(group + " "), [&] {
                       for (const Command& c : commands())
                         if (std::string(c.name).starts_with(group + " ")) return std::string(c.name);
                       return group;
                     }());
}

[[noreturn]] void unknown_command(const std::string& name) {
  std::vector<std::string> known;
  for (const Command& c : commands()) known.push_back(c.name);
  const std::string nearest = nearest_name(name, known);
  throw UsageError("nibble",
                   fmt::format("there is no command '{}'{} `nibble --help` lists all", name,
                               nearest.empty() ? ";" : fmt::format("; did you mean '{}'?", nearest)));
}

bool asks_for_help(const std::string& word) { return word == "--help" || word == "-h" || word == "help"; }

int dispatch(std::vector<std::string> words) {
  if (words.empty()) {
    std::fputs(program_help().c_str(), stderr);
    return kUsage;
  }
  if (words[0] == "--version") {
    print(fmt::format("nibble {}\n", NIBBLE_VERSION));
    return kOk;
  }
  if (asks_for_help(words[0])) {
    if (words.size() == 1) {
      print(program_help());
      return kOk;
    }
    words.erase(words.begin());  // `nibble help eval ppl` is `nibble eval ppl --help`
    words.push_back("--help");
  }
  if (words.size() >= 2)
    if (const Command* c = find_command(words[0] + " " + words[1]))
      return c->run({words.begin() + 2, words.end()});
  if (const Command* c = find_command(words[0])) return c->run({words.begin() + 1, words.end()});
  if (!is_group(words[0])) unknown_command(words[0]);
  if (words.size() == 1 || asks_for_help(words[1])) {
    if (words.size() > 1) {
      print(group_help(words[0]));
      return kOk;
    }
    std::fputs(group_help(words[0]).c_str(), stderr);
    return kUsage;
  }
  unknown_command(words[0] + " " + words[1]);
}

int report(int code, const char* message) {
  std::fprintf(stderr, "nibble: %s\n", message);
  return code;
}

int run(const std::vector<std::string>& words) {
  try {
    return dispatch(words);
  } catch (const UsageError& e) {
    return report(kUsage, e.what());
  } catch (const Interrupted& e) {
    return report(kInterrupted, e.what());
  } catch (const std::bad_alloc&) {
    return report(kFailed,
                  "[memory] the system gives no more memory; a smaller model, context or batch needs less");
  } catch (const std::exception& e) {
    return report(kFailed, e.what());
  }
}

}  // namespace
}  // namespace nibble::cli

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is a failed write, never the end of a training run
  nibble::backend::register_cpu_kernels();
  nibble::backend::register_cuda_kernels();
  return nibble::cli::run({argv + 1, argv + argc});
}

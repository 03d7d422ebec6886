#include "tests/cli/run_program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>

#include "base/error.h"

namespace nibble::cli {
namespace {

struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    int ends[2];
    require(::pipe2(ends, O_CLOEXEC) == 0, "pipe", "cannot be made");
    read = ends[0];
    write = ends[1];
  }
  static void close(int& end) {
    if (end >= 0) ::close(end);
    end = -1;
  }
  ~Pipe() {
    close(read);
    close(write);
  }
};

// `interrupt` is asked after each piece of output until it says yes: then SIGINT is sent.
Ran run(const std::vector<std::string>& arguments, const std::string& input,
        const std::function<bool(const Ran&)>& interrupt) {
  const std::string program = NIBBLE_BINARY_DIR "/nibble";
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  Pipe in, out, err;
  const pid_t child = ::fork();
  require(child >= 0, "fork", "failed");
  if (child == 0) {
    ::dup2(in.read, STDIN_FILENO);
    ::dup2(out.write, STDOUT_FILENO);
    ::dup2(err.write, STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  Pipe::close(in.read);
  Pipe::close(out.write);
  Pipe::close(err.write);
  // Inputs of the tests are smaller than a pipe's buffer.
  require(
      input.empty() || ::write(in.write, input.data(), input.size()) == static_cast<ssize_t>(input.size()),
      "pipe", "is full");
  Pipe::close(in.write);

  Ran ran;
  bool sent = interrupt == nullptr;
  std::array<pollfd, 2> files{{{out.read, POLLIN, 0}, {err.read, POLLIN, 0}}};
  std::array<std::string*, 2> texts{&ran.out, &ran.err};
  while (files[0].fd >= 0 || files[1].fd >= 0) {
    if (::poll(files.data(), files.size(), -1) < 0) break;
    for (size_t i = 0; i < files.size(); ++i) {
      if (files[i].fd < 0 || files[i].revents == 0) continue;
      char buffer[4096];
      const ssize_t n = ::read(files[i].fd, buffer, sizeof buffer);
      if (n <= 0)
        files[i].fd = -1;
      else
        texts[i]->append(buffer, static_cast<size_t>(n));
    }
    if (!sent && interrupt(ran)) {
      ::kill(child, SIGINT);
      sent = true;
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return ran;
}

}  // namespace

Ran run_program(const std::vector<std::string>& arguments, const std::string& input) {
  return run(arguments, input, nullptr);
}

Ran run_program_interrupted(const std::vector<std::string>& arguments, size_t after) {
  return run(arguments, "", [&](const Ran& ran) { return ran.out.size() >= after; });
}

Ran run_program_interrupted(const std::vector<std::string>& arguments, const std::string& word) {
  return run(arguments, "", [&](const Ran& ran) { return ran.err.find(word) != std::string::npos; });
}

}  // namespace nibble::cli

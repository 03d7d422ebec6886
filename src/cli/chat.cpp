// nibble chat: a conversation in the terminal, or over a pipe with one turn a line.
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/process.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/generation_options.h"
#include "cli/session.h"
#include "eval/generate.h"

namespace nibble::cli {
namespace {

constexpr const char* kHelp =
    "/reset          forget the conversation\n"
    "/system [TEXT]  set the system message (without TEXT: remove it)\n"
    "/help           this list\n"
    "/exit           end; so does the end of the input\n"
    "Ctrl-C stops an answer.\n";

void say(const std::string& text) { std::fputs(text.c_str(), stderr); }

class Conversation {
 public:
  Conversation(Session& session, eval::GenerateOptions options, std::string system)
      : session_(session),
        generator_(session.context(), session.model(), session.tokenizer()),
        options_(std::move(options)),
        system_(std::move(system)) {
    if (options_.context == 0) options_.context = session.model().config().max_positions;
  }

  void reset() { turns_ = Json::array(); }
  void set_system(std::string text) { system_ = std::move(text); }

  // Asks and streams the answer. False: nobody reads the output any more.
  bool ask(const std::string& text) {
    turns_.push_back({{"role", "user"}, {"content", text}});
    const std::vector<int32_t> prompt = fitting_prompt();
    if (prompt.empty()) return true;
    bool read = true;
    options_.first_stream = turn_++;
    const eval::Generated answer = generator_.run(
        {prompt}, options_, [&](size_t, std::string_view part) { return read = print(part); })[0];
    turns_.push_back({{"role", "assistant"}, {"content", answer.text}});
    if (read) read = print("\n");
    if (interrupted())
      say("[stopped]\n");
    else if (answer.finish == eval::Finish::kLength)
      say(fmt::format("[cut after {} tokens: --max-new-tokens, --context]\n", answer.ids.size()));
    set_interrupted(false);
    return read;
  }

 private:
  Json messages() const {
    Json all = Json::array();
    if (!system_.empty()) all.push_back({{"role", "system"}, {"content", system_}});
    for (const Json& turn : turns_) all.push_back(turn);
    return all;
  }

  // Ids of the conversation, its oldest turns dropped until an answer has room. Empty: not even the last turn
  // fits.
  std::vector<int32_t> fitting_prompt() {
    const int64_t room = std::min(options_.max_new_tokens, options_.context / 4);
    size_t dropped = 0;
    for (;;) {
      std::vector<int32_t> ids = session_.encode_chat(messages());
      if (static_cast<int64_t>(ids.size()) + std::max<int64_t>(room, 1) <= options_.context) {
        if (dropped > 0)
          say(fmt::format("[the context of {} tokens is full: the {} oldest messages were dropped]\n",
                          options_.context, dropped));
        return ids;
      }
      if (turns_.size() <= 1) {
        say(fmt::format("[this message has {} tokens and does not fit a context of {}; it was not sent]\n",
                        ids.size(), options_.context));
        turns_ = Json::array();
        return {};
      }
      do {  // a conversation begins with the user
        turns_.erase(turns_.begin());
        ++dropped;
      } while (turns_.size() > 1 && turns_[0]["role"] != "user");
    }
  }

  Session& session_;
  eval::Generator generator_;
  eval::GenerateOptions options_;
  std::string system_;
  Json turns_ = Json::array();
  uint64_t turn_ = 0;
};

// The next line of standard input; nullopt at its end. Ctrl-C clears the line.
std::optional<std::string> read_turn(bool terminal) {
  for (;;) {
    if (terminal) say("\n> ");
    char* line = nullptr;
    size_t capacity = 0;
    errno = 0;
    const ssize_t n = ::getline(&line, &capacity, stdin);
    std::string text(line != nullptr && n > 0 ? line : "", n > 0 ? static_cast<size_t>(n) : 0);
    std::free(line);
    if (n >= 0) {
      while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
      return replace_invalid_utf8(text);
    }
    if (errno != EINTR || !interrupted()) return std::nullopt;
    std::clearerr(stdin);
    set_interrupted(false);
    say("\n[/exit or the end of the input ends the chat]");
  }
}

// Carries out "/command …". False: the chat ends.
bool run_slash(Conversation& conversation, const std::string& line) {
  const size_t space = line.find(' ');
  const std::string word = line.substr(0, space),
                    rest = space == std::string::npos ? "" : std::string(trim(line.substr(space)));
  if (word == "/exit" || word == "/quit") return false;
  if (word == "/reset") {
    conversation.reset();
    say("[the conversation is forgotten]\n");
  } else if (word == "/system") {
    conversation.set_system(rest);
    say(rest.empty() ? "[no system message]\n" : "[system message set]\n");
  } else {
    if (word != "/help") say(fmt::format("[there is no {}]\n", word));
    say(kHelp);
  }
  return true;
}

}  // namespace

int run_chat(const Arguments& arguments) {
  ModelOptions model;
  GenerationOptions generation;
  std::string system;
  Options options("chat", "A conversation with a model, base or with an adapter.",
                  "nibble chat --model model.gguf --adapter runs/mine/adapter");
  model.declare(options);
  options.add("--system TEXT", system, "system message");
  generation.declare(options);
  options.footer(std::string("In the chat:\n") + kHelp);
  if (!options.parse(arguments)) return 0;
  model.apply();
  generation.check();

  Session session(model);
  session.chat();  // refuse a model without a template before the first turn
  catch_interrupts();
  std::signal(SIGTERM, SIG_DFL);  // stops the program, not the answer
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  Conversation conversation(session, generation.for_session(session, model.seed), system);
  if (terminal) say(fmt::format("{}. /help lists the commands.\n", session.files().path));
  while (const auto line = read_turn(terminal)) {
    if (trim(*line).empty()) continue;
    if (line->starts_with('/')) {
      if (!run_slash(conversation, *line)) break;
    } else if (!conversation.ask(*line)) {
      break;
    }
  }
  return 0;
}

}  // namespace nibble::cli

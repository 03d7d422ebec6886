#include "eval/judge.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/text.h"

namespace nibble::eval {
namespace {

constexpr const char* kSystem =
    "You compare two answers to a question and judge which one serves the person who asked better. Weigh "
    "whether the "
    "answers are right, complete, helpful and clear. The order in which they are shown and their length must "
    "not matter.";

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

// Lines are on disk before the next question is asked.
class Log {
 public:
  explicit Log(std::string path) : path_(std::move(path)) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    require(fd_ >= 0, path_, "cannot be written: {}", std::strerror(errno));
  }
  ~Log() { ::close(fd_); }
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  void append(const Json& line) {
    const std::string text = dump(line) + "\n";
    for (size_t at = 0; at < text.size();) {
      const ssize_t n = ::write(fd_, text.data() + at, text.size() - at);
      if (n < 0 && errno == EINTR) continue;
      require(n > 0, path_, "cannot be written: {}; what was judged so far is kept", std::strerror(errno));
      at += static_cast<size_t>(n);
    }
    ::fsync(fd_);
  }

 private:
  std::string path_;
  int fd_ = -1;
};

std::string key_of(const std::string& question, const std::string& first, const std::string& second) {
  return dump(Json::array({question, first, second}));
}

struct Logged {
  Json line;
  std::string winner;  // "" for nonsense
};

// Results that need not be asked again, by their key. The file is written anew without the rest.
std::map<std::string, Logged> resume(const std::string& path) {
  std::map<std::string, Logged> done;
  if (!std::filesystem::exists(path)) return done;
  const std::string text = read_file(path);
  std::string kept;
  const std::vector<std::string> lines = split(text, '\n');
  for (size_t i = 0; i < lines.size(); ++i) {
    if (trim(lines[i]).empty()) continue;
    const std::string where = fmt::format("{}:{}", path, i + 1);
    Json line;
    try {
      line = parse_json(lines[i], where);
    } catch (const Error&) {
      require(i + 1 == lines.size(), where, "is not JSON; is this a log of judgements?");
      break;  // cut off by a kill
    }
    const auto question = json_get<std::string>(line, "question_id", where);
    const auto first = json_get<std::string>(line, "model_a", where);
    const std::string key = key_of(question, first, json_get<std::string>(line, "model_b", where));
    if (!line.contains("answer") || line["answer"].is_null()) continue;  // nobody answered: asked again
    done[key] = {line, json_get<std::string>(line, "winner", "", where)};
    kept += lines[i] + "\n";
  }
  if (kept != text) write_file_atomic(path, kept);
  return done;
}

void count(const std::string& winner, JudgeResult& result) {
  if (winner == "model_a")
    ++result.first;
  else if (winner == "model_b")
    ++result.second;
  else if (winner == "tie")
    ++result.ties;
  else
    ++result.nonsense;
}

}  // namespace

std::vector<Comparison> comparisons(size_t questions, size_t systems) {
  std::vector<Comparison> out;
  for (size_t q = 0; q < questions; ++q)
    for (size_t a = 0; a < systems; ++a)
      for (size_t b = a + 1; b < systems; ++b) {
        out.push_back({q, a, b});
        out.push_back({q, b, a});
      }
  return out;
}

Json judge_messages(const std::string& question, const std::string& first, const std::string& second) {
  const std::string text = fmt::format(
      "[Question]\n{}\n[End of question]\n\n[Answer 1]\n{}\n[End of answer 1]\n\n[Answer 2]\n{}\n[End of "
      "answer 2]\n\n"
      "Explain in a few sentences how the two answers compare. Then write a last line that holds one number "
      "and nothing "
      "else: 1 if answer 1 is better, 2 if answer 2 is better, 3 if neither is.",
      question, first, second);
  return Json::array({{{"role", "system"}, {"content", kSystem}}, {{"role", "user"}, {"content", text}}});
}

std::optional<int> read_verdict(const std::string& answer) {
  std::string last;
  for (const std::string& line : split(answer, '\n'))
    if (!trim(line).empty()) last = trim(line);
  std::vector<std::string> numbers(1);
  for (const char c : last + " ") {
    if (c >= '0' && c <= '9')
      numbers.back() += c;
    else if (!numbers.back().empty())
      numbers.emplace_back();
  }
  numbers.pop_back();
  constexpr size_t kLongest = 60;  // a sentence that happens to hold a number is no verdict
  if (numbers.size() != 1 || last.size() > kLongest) return std::nullopt;
  if (numbers[0] == "1" || numbers[0] == "2" || numbers[0] == "3") return numbers[0][0] - '0';
  return std::nullopt;
}

JudgeResult judge(const std::vector<JudgeQuestion>& questions, const std::vector<JudgedSystem>& systems,
                  const std::string& judge_name, const std::function<JudgeReply(const Json& messages)>& ask,
                  const std::string& path, const JudgeOptions& options) {
  for (const JudgedSystem& s : systems)
    require(s.answers.size() == questions.size(), s.name, "has {} answers for {} questions", s.answers.size(),
            questions.size());
  const std::map<std::string, Logged> done = resume(path);
  Log log(path);
  JudgeResult result;
  const std::vector<Comparison> all = comparisons(questions.size(), systems.size());
  int64_t finished = 0, failures = 0;
  for (const Comparison& c : all) {
    const JudgeQuestion& question = questions[c.question];
    const JudgedSystem &first = systems[c.first], &second = systems[c.second];
    if (const auto it = done.find(key_of(question.id, first.name, second.name)); it != done.end()) {
      ++result.from_log;
      count(it->second.winner, result);
      if (options.progress) options.progress(++finished, static_cast<int64_t>(all.size()));
      continue;
    }
    const Json messages =
        judge_messages(question.text, first.answers[c.question], second.answers[c.question]);
    JudgeReply reply;
    std::optional<std::string> answer;
    std::optional<int> verdict;
    int64_t attempts = 0;
    double wait = options.wait_seconds;
    while (attempts <= options.retries && !verdict) {
      if (interrupted())
        throw Interrupted("judge", fmt::format("stopped after {} of {} comparisons; the same command goes on",
                                               finished, all.size()));
      if (attempts > 0 && !reply.failure.empty() && options.sleep) {
        options.sleep(wait);
        wait *= 2;
      }
      ++attempts;
      reply = ask(messages);
      require(!reply.hopeless, "judge", "{}; {} of {} comparisons are in {}", reply.failure, finished,
              all.size(), path);
      if (!reply.text) continue;
      answer = reply.text;
      verdict = read_verdict(*answer);
    }
    const char* const winners[] = {"model_a", "model_b", "tie"};
    Json line{{"question_id", question.id},
              {"model_a", first.name},
              {"model_b", second.name},
              {"winner", verdict ? Json(winners[*verdict - 1]) : Json(nullptr)},
              {"judge", judge_name},
              {"attempts", attempts},
              {"answer", answer ? Json(*answer) : Json(nullptr)}};
    if (!answer) line["failure"] = reply.failure;
    log.append(line);
    if (answer) {
      failures = 0;
      count(verdict ? winners[*verdict - 1] : "", result);
    } else {
      ++result.unanswered;
      require(++failures < options.most_failures, "judge",
              "{} comparisons in a row got no answer, the last because of: {}. What was judged is in {}; the "
              "same command goes on",
              failures, reply.failure, path);
    }
    if (options.progress) options.progress(++finished, static_cast<int64_t>(all.size()));
  }
  return result;
}

}  // namespace nibble::eval

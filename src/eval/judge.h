// A language model as judge of two answers, asked in both orders: what it is asked, what its answer means,
// and a log from which an interrupted run goes on.
//
// The three-class judgement of the QLoRA paper: the judge explains, then ends with 1 (the first answer is
// better), 2 (the second) or 3 (tie). A judge has a position bias, so every pair is judged in both orders.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace nibble::eval {

struct JudgeQuestion {
  std::string id, text;
};

struct JudgedSystem {
  std::string name;
  std::vector<std::string> answers;  // one per question
};

// Which comparison: answers of two systems to a question, `first` shown first.
struct Comparison {
  size_t question, first, second;
};
// Every ordered pair of systems for every question.
std::vector<Comparison> comparisons(size_t questions, size_t systems);

// Messages for the judge.
Json judge_messages(const std::string& question, const std::string& first, const std::string& second);
// 1, 2 or 3: the only number in the last line that has text, markup ignored ("**2**", "Verdict: [[1]]").
// nullopt for anything else.
std::optional<int> read_verdict(const std::string& answer);

// What came of asking once: the text, or why there is none.
struct JudgeReply {
  std::optional<std::string> text;
  std::string failure;    // empty with a text
  bool hopeless = false;  // asking again cannot help (wrong key, unknown model)
};

struct JudgeOptions {
  int64_t retries = 3;                // further attempts at one comparison
  int64_t most_failures = 5;          // comparisons in a row without any reply, after which the run ends
  double wait_seconds = 1;            // before the first retry; doubled for each further one
  std::function<void(double)> sleep;  // may be empty
  std::function<void(int64_t done, int64_t of)> progress;  // may be empty
};

struct JudgeResult {
  int64_t first = 0, second = 0, ties = 0;  // verdicts, of this run and of the log it went on from
  int64_t nonsense = 0;                     // answered, but never with a verdict
  int64_t unanswered = 0;                   // left for the next run
  int64_t from_log = 0;                     // were there already
};

// Judges every comparison that the log at `path` has no reply for, and writes each result to it at once: a
// JSON line
// {"question_id", "model_a" (shown first), "model_b", "winner": "model_a" | "model_b" | "tie" | null,
// "judge", "attempts", "answer"} that nibble eval elo reads. A line cut off by a kill is dropped. Errors:
// Error{path} for a log of another layout; Error{"judge"} when the judge cannot be asked (the log is kept);
// Interrupted.
JudgeResult judge(const std::vector<JudgeQuestion>& questions, const std::vector<JudgedSystem>& systems,
                  const std::string& judge_name, const std::function<JudgeReply(const Json& messages)>& ask,
                  const std::string& path, const JudgeOptions& options);

}  // namespace nibble::eval

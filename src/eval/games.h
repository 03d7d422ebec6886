// Pairwise judgements as games: who was shown first, who second, who won.
#pragma once
#include <string>
#include <vector>

namespace nibble::eval {

struct Game {
  std::string first, second;  // systems, in the order the judge saw them
  std::string item;           // the question; "" when the record names none
  double score = 0.5;         // of the first: 1 won, 0.5 tie, 0 lost
};

struct Games {
  std::vector<Game> games;
  int64_t invalid = 0;  // records without a verdict that can be read
};

// Files of records, or folders of them (.jsonl, .json). Two layouts, found by looking:
//   {"model_a", "model_b", "winner": "model_a" | "model_b" | "tie…", "question_id"}: Chatbot Arena's, and
//   what
//     `nibble eval judge` writes (model_a was shown first);
//   {"question_id", "score": 1 | 2 | 3 (tie) | -1 (invalid)} in files named
//   <first>-vs-<second>-<judge>.jsonl:
//     the QLoRA reference's.
// Errors: Error{file:line} for other layouts and for verdicts that are none of these; Error{path} when there
// is no game; a system that meets itself.
Games read_games(const std::vector<std::string>& paths);

}  // namespace nibble::eval

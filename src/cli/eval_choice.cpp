// nibble eval choice: any file of multiple-choice questions.
#include "cli/choice_report.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "eval/choice_data.h"

namespace nibble::cli {

int run_eval_choice(const Arguments& arguments) {
  ModelOptions model;
  eval::ChoiceOptions options;
  std::string data, shots_file, answers;
  int64_t shots = 5, limit = 0;
  bool json = false;
  Options cli(
      "eval choice", "Multiple choice from any file, asked as MMLU is: by the logits of the letters.",
      "nibble eval choice --model model.gguf --data questions.jsonl --shots-from solved.jsonl --shots 5");
  model.declare(cli);
  cli.add("--data FILE", data, "questions: .jsonl, .json, .csv or .tsv", true);
  cli.add("--shots-from FILE", shots_file, "solved questions for the shots, in the same layout");
  cli.add("--shots N", shots, "how many of them stand in front of each question");
  cli.add("--limit N", limit, "only the first N questions of each subject; 0 is all");
  cli.add("--context N", options.context, "most tokens of a prompt; 0 is what the model was made for");
  cli.add("--answers FILE.jsonl", answers, "also write a line per question: logits, chosen, answer, shots");
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "A record: \"question\"; \"choices\" (a list, or ARC's {\"text\", \"label\"}) or fields \"A\", \"B\", "
      "…; \"answer\" (a "
      "letter, an index from 0, a label or a choice's text); \"subject\" if there are several.\n"
      "JSON as from nibble eval mmlu.");
  if (!cli.parse(arguments)) return 0;
  model.apply();
  if (shots < 0) throw UsageError("--shots", fmt::format("expected a number from 0 up, got {}", shots));
  if (limit < 0) throw UsageError("--limit", fmt::format("expected a number from 0 up, got {}", limit));

  std::vector<eval::ChoiceSubject> read = eval::read_choices(data, shots_file, shots, limit);
  Session session(model);
  report_choices(session, std::move(read), options, answers, json);
  return 0;
}

}  // namespace nibble::cli

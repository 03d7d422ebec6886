// nibble eval mmlu: the 57 subjects, five shots, by the logits of A, B, C and D.
#include <filesystem>

#include "cli/choice_report.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "eval/choice_data.h"

namespace nibble::cli {

int run_eval_mmlu(const Arguments& arguments) {
  ModelOptions model;
  eval::ChoiceOptions options;
  std::string data, split = "test", answers;
  std::vector<std::string> subjects;
  int64_t shots = 5, limit = 0;
  bool json = false;
  Options cli("eval mmlu",
              "MMLU (Hendrycks et al. 2021): multiple choice in 57 subjects, by the logits of A, B, C and D "
              "after solved "
              "examples of the same subject.",
              "nibble eval mmlu --model model.gguf --data mmlu/data --shots 5");
  model.declare(cli);
  cli.add("--data PATH", data,
          "the folder with dev/, val/ and test/, or a file of {\"subject\", \"input\", \"output\"} prompts "
          "such as the "
          "reference's zero_shot_mmlu_val.json",
          true);
  cli.add("--split NAME", split, "test, val or dev");
  cli.add("--shots N", shots, "solved questions in front of each, 0 to 5");
  cli.add("--subject NAME", subjects, "only this subject; may be given several times");
  cli.add("--limit N", limit, "only the first N questions of each subject; 0 is all");
  cli.add("--context N", options.context, "most tokens of a prompt; 0 is what the model was made for");
  cli.flag("--reference-loss", options.reference_loss,
           "score as the QLoRA script does: letters tokenized alone, and the loss over letter and end token");
  cli.add("--answers FILE.jsonl", answers, "also write a line per question: logits, chosen, answer, shots");
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "A prompt that exceeds the context loses shots one at a time (\"fewer_shots\": questions, "
      "\"shots_removed\"); "
      "with none left it loses its beginning (\"cut\").\n"
      "JSON: {\"accuracy\" over questions, \"subject_mean\", \"loss\", \"right\", \"questions\", "
      "\"fewer_shots\", "
      "\"shots_removed\", \"cut\", \"seconds\", \"categories\": {…}, \"subjects\": {…}}.");
  if (!cli.parse(arguments)) return 0;
  model.apply();
  if (split != "test" && split != "val" && split != "dev")
    throw UsageError("--split", fmt::format("expected test, val or dev, got {}", split));
  if (shots < 0 || shots > 5)
    throw UsageError("--shots", fmt::format("expected 0 to 5 (dev has five a subject), got {}", shots));
  if (limit < 0) throw UsageError("--limit", fmt::format("expected a number from 0 up, got {}", limit));

  std::vector<eval::ChoiceSubject> read = std::filesystem::is_directory(data)
                                              ? eval::read_mmlu(data, split, shots, subjects, limit)
                                              : eval::read_mmlu_prompts(data, subjects, limit);
  Session session(model);
  report_choices(session, std::move(read), options, answers, json);
  return 0;
}

}  // namespace nibble::cli

#include "cli/command.h"
#include "cli/commands.h"

namespace nibble::cli {

// The contents page of the program, in the order of `nibble --help`.
const std::vector<Command>& commands() {
  static const std::vector<Command> table = {
      {"train", "fine-tune a model on data: adapters over a frozen 4-bit base", run_train},
      {"plan", "the memory and the time that a run will take, before it takes them", run_plan},
      {"chat", "talk to a model", run_chat},
      {"generate", "write text with a model: one prompt or a file of them", run_generate},
      {"serve", "a server with OpenAI's API: base and adapters by name, streaming", run_serve},
      {"eval ppl", "perplexity of a text or of the records of a file", run_eval_ppl},
      {"eval match", "share of reference answers given exactly, base and adapter side by side",
       run_eval_match},
      {"eval mmlu", "57 subjects of multiple choice after solved examples, by subject and category",
       run_eval_mmlu},
      {"eval choice", "any file of multiple-choice questions", run_eval_choice},
      {"eval glue", "a classifier's score on one of GLUE's nine tasks", run_eval_glue},
      {"eval score", "ROUGE, exact match, accuracy, F1 and correlations of a file of predictions",
       run_eval_score},
      {"eval judge", "ask a judge which of two answers is better, in both orders", run_eval_judge},
      {"eval elo", "ratings from pairwise judgements, with intervals and order bias", run_eval_elo},
      {"inspect model", "tensors, formats, sizes, and the error that a format would make", run_inspect_model},
      {"inspect data", "what is trained, token by token, and how long the examples are", run_inspect_data},
      {"inspect adapter", "rank, targets and norms of a LoRA adapter", run_inspect_adapter},
      {"quantize", "write a model as a bitsandbytes checkpoint that Transformers loads", run_quantize},
      {"study", "a grid of trainings and measurements, and the table that comes of it", run_study},
      {"bench", "where the time of a training step goes, beside what the machine can do", run_bench},
      {"tokenize", "ids and pieces of a text, and back", run_tokenize},
  };
  return table;
}

}  // namespace nibble::cli

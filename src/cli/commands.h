// The entry point of every command, one per file of this folder. A new command is such a file, a line here
// and a row in registry.cpp (docs/adding/command.md).
#pragma once
#include <string>
#include <vector>

namespace nibble::cli {

using Arguments = std::vector<std::string>;

int run_bench(const Arguments& arguments);
int run_chat(const Arguments& arguments);
int run_eval_choice(const Arguments& arguments);
int run_eval_elo(const Arguments& arguments);
int run_eval_glue(const Arguments& arguments);
int run_eval_judge(const Arguments& arguments);
int run_eval_match(const Arguments& arguments);
int run_eval_mmlu(const Arguments& arguments);
int run_eval_ppl(const Arguments& arguments);
int run_eval_score(const Arguments& arguments);
int run_generate(const Arguments& arguments);
int run_inspect_adapter(const Arguments& arguments);
int run_inspect_data(const Arguments& arguments);
int run_inspect_model(const Arguments& arguments);
int run_plan(const Arguments& arguments);
int run_quantize(const Arguments& arguments);
int run_serve(const Arguments& arguments);
int run_study(const Arguments& arguments);
int run_tokenize(const Arguments& arguments);
int run_train(const Arguments& arguments);

}  // namespace nibble::cli

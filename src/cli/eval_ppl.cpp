// nibble eval ppl: perplexity of a text or of the records of a file.
#include "base/file.h"
#include "base/process.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/jsonl.h"
#include "cli/session.h"
#include "eval/perplexity.h"

namespace nibble::cli {
namespace {

std::vector<std::string> read_documents(const std::string& text, const std::string& data,
                                        const std::string& field) {
  if (!text.empty()) return {read_file(text)};
  std::vector<std::string> documents;
  for (const JsonLine& line : read_jsonl(data)) {
    require(line.value.is_object(), line.where, "expected an object with the text under \"{}\" (see --field)",
            field);
    documents.push_back(json_get<std::string>(line.value, field.c_str(), line.where));
  }
  return documents;
}

// One line for each predicted token.
void write_per_token(const std::string& path, const std::vector<std::vector<int32_t>>& documents,
                     const eval::Perplexity& result, const text::Tokenizer& tokenizer) {
  AtomicFile file(path);
  for (size_t d = 0; d < documents.size(); ++d)
    for (size_t i = 0; i < result.log_probs[d].size(); ++i) {
      const int32_t id = documents[d][i + 1];
      const Json line{{"document", d},
                      {"position", i + 1},
                      {"id", id},
                      {"token", tokenizer.piece(id)},
                      {"logprob", result.log_probs[d][i]}};
      file.write(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    }
  file.commit();
}

}  // namespace

int run_eval_ppl(const Arguments& arguments) {
  ModelOptions model;
  eval::PerplexityOptions options;
  std::string text, data, field = "text", per_token;
  bool json = false;
  Options cli("eval ppl",
              "Perplexity by strided windows: every token is scored once, with the longest context that "
              "window and stride "
              "leave it.",
              "nibble eval ppl --model model.gguf --text book.txt --context 1024 --stride 512");
  model.declare(cli);
  cli.add("--text FILE", text, "a text; the whole file is one document");
  cli.add("--data FILE.jsonl", data, "records; each is a document of its own");
  cli.add("--field NAME", field, "where a record holds its text");
  cli.add("--context N", options.context,
          "tokens of a window; 0 is what the model was made for, at most 2048");
  cli.add("--stride N", options.stride, "tokens between the beginnings of windows; 0 is half the context");
  cli.add("--per-token FILE", per_token,
          "also write a JSON line per predicted token: document, position, id, token, logprob");
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "JSON: {\"nll\": mean per predicted token, \"ppl\": exp(nll), \"tokens\": predicted tokens, "
      "\"documents\"}.");
  if (!cli.parse(arguments)) return 0;
  model.apply();
  if (text.empty() == data.empty())
    throw UsageError("eval ppl", "give either --text FILE or --data FILE.jsonl");

  const std::vector<std::string> documents = read_documents(text, data, field);
  Session session(model);
  std::vector<std::vector<int32_t>> ids;
  for (const std::string& document : documents) ids.push_back(session.tokenizer().encode(document));

  catch_interrupts();
  options.progress = live_progress("tokens");
  const eval::Perplexity result = eval::perplexity(session.context(), session.model(), ids, options);
  if (!per_token.empty()) write_per_token(per_token, ids, result, session.tokenizer());
  if (json)
    print_json({{"nll", result.nll},
                {"ppl", result.ppl},
                {"tokens", result.tokens},
                {"documents", result.documents}});
  else
    print(fmt::format("perplexity {:.4f}   nll {:.6f}   {} tokens   {} document{}\n", result.ppl, result.nll,
                      show_count(result.tokens), result.documents, result.documents == 1 ? "" : "s"));
  return 0;
}

}  // namespace nibble::cli

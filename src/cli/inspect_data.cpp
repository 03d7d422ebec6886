// nibble inspect data: what a data set becomes before the first step: the rendered examples with what is
// learned, their lengths, what would be cut, and how well they pack.
#include <unistd.h>

#include <algorithm>

#include "base/json.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "data/dataset.h"
#include "data/steps.h"

namespace nibble::cli {
namespace {

// Tokens the model can see, or 0 when only a tokenizer is there.
int64_t context_of(const std::string& model) {
  try {
    return json_get<int64_t>(io::open_model(model).config, "max_position_embeddings", 0, model);
  } catch (const Error&) {
    return 0;
  }
}

struct Packing {
  double packed = 0, alone = 0;  // share of the sequences that tokens fill
  int64_t sequences = 0;         // of an epoch, packed
};

Packing packing_of(const data::Dataset& dataset, int64_t seed) {
  data::StepOptions options{.batch_size = 1,
                            .accumulation = 1,
                            .packing = true,
                            .max_seq_length = dataset.report.max_seq_length,
                            .seed = static_cast<uint64_t>(seed)};
  Packing p;
  const data::StepStream packed(dataset.train, dataset.train_weights, options);
  p.packed = packed.fill();
  p.sequences = packed.steps_per_epoch();
  options.packing = false;
  p.alone = data::StepStream(dataset.train, dataset.train_weights, options).fill();
  return p;
}

std::string histogram(const data::DataReport& report) {
  const int64_t most = *std::max_element(report.length_histogram.begin(), report.length_histogram.end());
  const auto bins = static_cast<int64_t>(report.length_histogram.size());
  std::string text = "examples by length in tokens:\n";
  bool begun = false;
  for (int64_t i = 0; i < bins; ++i) {
    const int64_t count = report.length_histogram[static_cast<size_t>(i)];
    begun = begun || count > 0;
    const int64_t first = (i * (report.longest + 1) + bins - 1) / bins,
                  next = ((i + 1) * (report.longest + 1) + bins - 1) / bins;
    if (next <= first || !begun) continue;
    const auto width = static_cast<size_t>(most > 0 ? (count * 50 + most - 1) / most : 0);
    text += fmt::format("  {:>6} – {:<6} {:>7}  {}\n", first, next - 1, count, std::string(width, '#'));
  }
  return text;
}

std::string lengths(const data::DataReport& report, const std::string& overlong) {
  std::string text =
      fmt::format("sequences of {} tokens; the longest example, {}, has {}\n",
                  show_count(report.max_seq_length), report.longest_source, show_count(report.longest));
  if (report.overlong == 0) return text + "nothing would be cut\n";
  const char* what = overlong == "error"      ? "training refuses that (overlong: error)"
                     : overlong == "truncate" ? "their ends are cut off (overlong: truncate)"
                     : overlong == "drop"     ? "they are left out (overlong: drop)"
                                              : "they are cut into parts (overlong: split)";
  return text + fmt::format("{} examples are longer: {}\n", show_count(report.overlong), what);
}

Json example_json(const data::EncodedExample& example, const text::Tokenizer& tokenizer) {
  Json pieces = Json::array(), train = Json::array();
  for (size_t i = 0; i < example.ids.size(); ++i) {
    pieces.push_back(tokenizer.piece(example.ids[i]));
    train.push_back(static_cast<int>(example.train[i]));
  }
  return {{"source", example.source},
          {"ids", example.ids},
          {"pieces", pieces},
          {"train", train},
          {"text", data::show_example(example, tokenizer, false)}};
}

}  // namespace

int run_inspect_data(const Arguments& arguments) {
  ModelOptions model;
  std::vector<std::string> files;
  std::string format = "auto", overlong = "error";
  int64_t max_seq_length = 0, examples = 1;
  bool json = false, train_on_source = false, split_special_tokens = true;
  Options cli("inspect data",
              "Shows what a data set becomes: examples with the trained tokens marked, lengths, packing, "
              "what would be cut.",
              "nibble inspect data --model model.gguf --data chats.jsonl --examples 3");
  cli.add("--model PATH", model.model, "model, or a directory with a tokenizer", true);
  cli.add("--tokenizer PATH", model.tokenizer, "tokenizer, when it is not beside the weights");
  cli.add("--data FILE", files, "a data set; may be given again");
  std::string known = "auto";
  for (const data::DataFormat& f : data::data_formats()) known += std::string(", ") + f.name;
  cli.add("--format NAME", format, "layout of the data: " + known);
  cli.add("--max-seq-length N", max_seq_length, "0: what the data needs, up to the model's context");
  cli.add("--overlong WHAT", overlong,
          "what would become of longer examples: error, truncate, drop or split");
  cli.flag("--train-on-source", train_on_source, "prompts are learned too");
  cli.flag("--split-special-tokens,!--no-split-special-tokens", split_special_tokens,
           "special tokens spelled inside a message stay text (default), or become the tokens");
  cli.add("--examples N", examples, "how many examples to show");
  cli.add("--seed N", model.seed, "order of packing and the held-out part");
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "JSON: {\"report\": {…}, \"packing\": {\"fill\", \"fill_unpacked\", \"sequences\"}, \"examples\": "
      "[{\"source\", \"ids\", \"pieces\",\n"
      "\"train\", \"text\"}]}. In plain text, trained tokens stand between « and », in a terminal they are "
      "green.");
  if (!cli.parse(arguments)) return 0;
  if (files.empty()) throw UsageError("inspect data", "no data set is given; name one with --data FILE");
  if (examples < 0) throw UsageError("--examples", fmt::format("should be at least 0, got {}", examples));

  const auto tokenizer = load_tokenizer(model);
  const data::Encoder encoder(tokenizer, data::training_template(*tokenizer), split_special_tokens);
  data::DataOptions options;
  for (const std::string& file : files) options.train.push_back({file, format, 1});
  options.max_seq_length = max_seq_length;
  options.context = context_of(model.model);
  // Looking never refuses: over-long examples are counted, and cut for the figures below.
  const data::Overlong wish = data::parse_overlong(overlong);
  options.overlong = wish == data::Overlong::kError ? data::Overlong::kTruncate : wish;
  options.train_on_source = train_on_source;
  options.seed = static_cast<uint64_t>(model.seed);
  options.eval_fraction = 0;  // all of it is looked at
  const data::Dataset dataset = data::load_dataset(options, encoder);
  const data::DataReport& report = dataset.report;
  const Packing packing = packing_of(dataset, model.seed);
  const size_t shown = std::min(static_cast<size_t>(examples), dataset.train.size());

  if (json) {
    Json document = {
        {"report", report.to_json()},
        {"packing",
         {{"fill", packing.packed}, {"fill_unpacked", packing.alone}, {"sequences", packing.sequences}}},
        {"examples", Json::array()}};
    for (size_t i = 0; i < shown; ++i)
      document["examples"].push_back(example_json(dataset.train[i], *tokenizer));
    print_json(document);
    return 0;
  }
  std::string text;
  for (const auto& file : report.files)
    text += fmt::format("{}: {}, {} examples\n", file.path, file.format, show_count(file.examples));
  text += encoder.has_chat_template() ? "conversations are written with the model's own chat template\n"
                                      : "the model has no chat template: prompts are written plainly\n";
  text += fmt::format("{} tokens, {} of them trained ({:.1f} %)\n", show_count(report.tokens),
                      show_count(report.trained_tokens),
                      100.0 * static_cast<double>(report.trained_tokens) /
                          static_cast<double>(std::max<int64_t>(report.tokens, 1)));
  text += lengths(report, overlong);
  if (report.untrained > 0)
    text += fmt::format("{} examples have no trained token and are left out\n", show_count(report.untrained));
  if (report.duplicates > 0)
    text += fmt::format("{} examples are exact duplicates of earlier ones\n", show_count(report.duplicates));
  text +=
      fmt::format("packed, an epoch is {} sequences, {:.1f} % of them tokens ({:.1f} % without packing)\n\n",
                  show_count(packing.sequences), 100 * packing.packed, 100 * packing.alone);
  text += histogram(report);
  const bool colour = isatty(STDOUT_FILENO) == 1;
  for (size_t i = 0; i < shown; ++i)
    text += fmt::format("\n--- {} ({} tokens, {} trained)\n{}\n", dataset.train[i].source,
                        dataset.train[i].ids.size(), dataset.train[i].trained(),
                        data::show_example(dataset.train[i], *tokenizer, colour));
  print(text);
  return 0;
}

}  // namespace nibble::cli

// Data sets ready to train on: read, encoded, checked, split, and cut into whole optimizer steps.
// Nothing is cut, dropped or left untrained silently: the report counts everything, and what the options do
// not allow is an error that names the key that decides.
#pragma once
#include <memory>
#include <optional>

#include "data/formats.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace nibble::data {

enum class Overlong : uint8_t { kError, kTruncate, kDrop, kSplit };
Overlong parse_overlong(std::string_view name);  // UsageError with the known names

struct DataSource {
  std::string path;
  std::string format = "auto";
  double weight =
      1;  // share of examples drawn from it in each epoch, relative to its size (1: all of it once)
  int64_t skip = 0, take = 0;  // of its examples: without the first `skip`, then at most `take` (0: all)
};

struct DataOptions {
  std::vector<DataSource> train;
  std::vector<DataSource> eval;  // empty: `eval_fraction` of the training data is held out
  double eval_fraction = 0.05;   // at most 200 examples; 0: nothing held out
  int64_t max_seq_length = 0;    // 0: what the data needs, up to `context`
  // Most tokens of a prompt (what comes before the first learned token, BOS included) and of a response (the
  // rest, end token included): each is cut at its own end, as the QLoRA reference does. 0: no limit of its
  // own.
  int64_t source_max_length = 0, target_max_length = 0;
  int64_t context = 0;  // of the model
  Overlong overlong = Overlong::kError;
  bool train_on_source = false;
  bool classify = false;  // labels of whole texts are learned; the data must have them
  bool seq2seq = false;   // for an encoder–decoder: limits are of source and target each
  uint64_t seed = 42;
};

struct DataReport {
  struct File {
    std::string path, format;
    int64_t examples = 0;
  };
  std::vector<File> files;
  int64_t train_examples = 0, eval_examples = 0;
  int64_t tokens = 0, trained_tokens = 0;  // of the training part, before cutting
  int64_t longest = 0;                     // tokens of the longest example, held out or not
  std::string longest_source;              // where that one is
  int64_t overlong = 0, truncated = 0, dropped = 0, split = 0;
  int64_t source_cut = 0, target_cut = 0;  // prompts and responses cut to their own limits
  int64_t untrained = 0;                   // examples without a trained token (dropped, counted)
  int64_t duplicates = 0, overlap = 0;     // exact duplicates in train; train examples that are in eval too
  int64_t max_seq_length = 0;
  int64_t max_source_length = 0;          // of an encoder–decoder's sources; max_seq_length is of targets
  std::vector<int64_t> length_histogram;  // 16 bins up to longest
  Json to_json() const;
};

struct Dataset {
  std::vector<EncodedExample> train, eval;
  std::vector<double> train_weights;  // of its source, per example: how often an epoch draws it
  std::vector<Example> preview;       // the first training example, for the gate and `inspect data`
  DataReport report;
  std::string task;  // with labels: which of GLUE's
};

// The template that the tokenizer came with, as training data is written with it; null when it has none. Its
// strftime_now() tells 26 July 2024 (what Llama 3.1's template takes for today when it cannot ask), so that a
// run repeated or resumed on another day trains on the same bytes. Errors: a template that cannot be parsed.
std::shared_ptr<const text::ChatTemplate> training_template(const text::Tokenizer& tokenizer);

// How text becomes ids: the tokenizer and, for conversations, its template. The loss mask comes from the
// template's provenance: a trained message's own text, and the end token the template puts after it, are
// learned; white space after that is not; of an empty answer the end token alone. An example with a label is
// its texts as the tokenizer's PairTemplate puts them together. Errors: an assistant turn without an end (the
// template has no end token after it); a label where the tokenizer has no PairTemplate. For an
// encoder–decoder (`start_token`) an example is a source and a target, each with the end token behind it: the
// last learned part, of a conversation the last learned answer, is the target, what stands before it the
// source. Errors: nothing before it; an empty target.
class Encoder {
 public:
  // split_special_tokens: a special token's spelling inside a message stays text (text/chat.h). start_token:
  // what an encoder–decoder's decoder starts from.
  Encoder(std::shared_ptr<const text::Tokenizer> tokenizer,
          std::shared_ptr<const text::ChatTemplate> chat_template, bool split_special_tokens = true,
          std::optional<int32_t> start_token = {});
  EncodedExample encode(const Example& example) const;
  // Cuts source and target of a pair to their limits (0: none), each before its end token.
  static void cut_pair(EncodedExample& example, int64_t source_limit, int64_t target_limit);
  // Cuts an example with a label to `limit` tokens: off the end of the longer text first, as Transformers
  // does. Errors: what stands around the texts is longer.
  void truncate(EncodedExample& example, int64_t limit) const;
  bool has_chat_template() const { return chat_template_ != nullptr; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  // By the template. Errors: Error{example.source} with what the template says.
  text::RenderedChat render(const Example& example) const;
  EncodedExample encode_labelled(const Example& example) const;
  EncodedExample encode_pair(const Example& example) const;
  // A conversation for a model without a template: "### Human: …### Assistant: …", as the reference trains
  // OASST1.
  static std::vector<Segment> plain_conversation(const Example& example);

  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::shared_ptr<const text::ChatTemplate> chat_template_;
  bool split_special_;
  std::optional<int32_t> start_token_;
  std::optional<int32_t> end_of_turn_;  // of the template
};

// Errors: everything above; no example left; no trained token at all; overlong examples under
// Overlong::kError (count, the longest, the keys max_seq_length and overlong). With `classify`: texts without
// labels, several tasks at once, overlong: split. With `seq2seq`: overlong: split, train_on_source.
Dataset load_dataset(const DataOptions& options, const Encoder& encoder);

// The example as text with trained tokens marked (ANSI colours or «…»), for the gate and `nibble inspect
// data`.
std::string show_example(const EncodedExample& example, const text::Tokenizer& tokenizer, bool colour);

}  // namespace nibble::data

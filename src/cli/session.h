// A model ready to be asked: weights, tokenizer, chat template and adapter from the options that all commands
// share.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "autograd/context.h"
#include "base/json.h"
#include "cli/command.h"
#include "io/peft_adapter.h"
#include "io/weights.h"
#include "models/model.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace nibble::cli {

// The tokenizer at --tokenizer, else beside the weights.
std::shared_ptr<const text::Tokenizer> load_tokenizer(const ModelOptions& options);

class Session {
 public:
  // Errors: everything of its parts; a tokenizer with more tokens than the model has embeddings.
  explicit Session(const ModelOptions& options);

  const models::Model& model() const { return *model_; }
  models::Model& model() { return *model_; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  // Errors: the model has no chat template, or one that cannot be parsed.
  const text::ChatTemplate& chat() const;
  // The same, null for a model without one.
  std::shared_ptr<const text::ChatTemplate> chat_or_none() const;
  std::shared_ptr<const text::Tokenizer> shared_tokenizer() const { return tokenizer_; }
  const io::ModelFiles& files() const { return files_; }
  // No tape; the adapter, if any, applies to every token.
  autograd::Context& context() { return *context_; }
  DType compute() const { return compute_; }
  // One more adapter, under a number of its own. Gives what context().adapters is set to where it should
  // apply. Errors: no adapter of this model there.
  std::vector<autograd::AdapterSpan> attach_adapter(const std::string& directory, int id);

  // eval::stop_ids of this model.
  std::vector<int32_t> stop_ids() const;
  // Ids of a conversation up to where the assistant speaks; special tokens come from the template alone.
  std::vector<int32_t> encode_chat(const Json& messages) const;

 private:
  io::ModelFiles files_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::shared_ptr<const text::ChatTemplate> chat_;
  std::string chat_error_;
  std::unique_ptr<backend::Stream> stream_;
  std::unique_ptr<models::Model> model_;
  std::unique_ptr<autograd::Context> context_;
  DType compute_;
};

}  // namespace nibble::cli

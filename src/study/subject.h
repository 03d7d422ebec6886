// A model that is measured: a base in the format of its variant, with the adapter that a run trained over it,
// if any.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "autograd/context.h"
#include "io/weights.h"
#include "models/model.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "train/recipe.h"

namespace nibble::study {

class Subject {
 public:
  // `recipe` says model, tokenizer, format and compute type. `run`: the directory of a finished run (an
  // adapter, or with method full a whole model), or empty. `held_out_loss` is what that run ended with.
  Subject(const train::Recipe& recipe, const std::string& run, std::optional<double> held_out_loss);

  const models::Model& model() const { return *model_; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  std::shared_ptr<const text::Tokenizer> shared_tokenizer() const { return tokenizer_; }
  // The template that training writes conversations with; null when the tokenizer has none. Errors: one that
  // cannot be parsed.
  std::shared_ptr<const text::ChatTemplate> chat() const;
  std::vector<int32_t> stop_ids() const;  // eval::stop_ids
  autograd::Context& context() { return *context_; }
  std::optional<double> held_out_loss() const { return held_out_loss_; }
  double weight_bytes() { return static_cast<double>(model_->weight_bytes()); }
  double weights();  // how many there are

 private:
  io::ModelFiles files_;
  std::unique_ptr<models::Model> model_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::unique_ptr<backend::Stream> stream_;
  std::unique_ptr<autograd::Context> context_;
  std::optional<double> held_out_loss_;
};

}  // namespace nibble::study

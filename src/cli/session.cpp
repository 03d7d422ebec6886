#include "cli/session.h"

#include <limits>

#include "base/log.h"
#include "eval/generate.h"
#include "models/classifier.h"

namespace nibble::cli {
std::shared_ptr<const text::Tokenizer> load_tokenizer(const ModelOptions& options) {
  return text::load_tokenizer(options.tokenizer.empty() ? options.model : options.tokenizer);
}

Session::Session(const ModelOptions& options)
    : files_(io::open_model(options.model)), compute_(options.dtype == "f32" ? kF32 : kBF16) {
  tokenizer_ = load_tokenizer(options);
  if (!options.adapter.empty())
    files_ = models::with_head_of(io::read_adapter(options.adapter), std::move(files_));
  const auto spec = quant::parse_quantize(options.quantize, options.double_quant, options.block_size);
  stream_ = std::make_unique<backend::Stream>(host_allocator());
  model_ = models::load_model(files_, *stream_, {.quantize = spec, .dense_dtype = compute_, .progress = {}});
  const int64_t vocab = model_->config().vocab;
  require(tokenizer_->vocab_size() <= vocab, options.model,
          "the tokenizer ({}) has {} tokens but the model has {} embeddings; they do not belong together",
          tokenizer_->description, tokenizer_->vocab_size(), vocab);
  context_ = std::make_unique<autograd::Context>(*stream_, host_allocator(), compute_);
  if (!options.adapter.empty()) context_->adapters = attach_adapter(options.adapter, 0);
  try {
    chat_ = text::chat_template_of(*tokenizer_);
  } catch (const Error& e) {
    chat_error_ = e.what();  // matters only to those who ask for the template
  }
}

std::vector<autograd::AdapterSpan> Session::attach_adapter(const std::string& directory, int id) {
  const io::AdapterFile adapter = io::read_adapter(directory);
  io::require_same_base(adapter, directory, files_);
  nn::attach_adapter([&](const nn::LinearVisitor& visit) { model_->visit_linears(visit); }, adapter, id,
                     host_allocator(), [&](const nn::LinearVisitor& visit) { model_->visit_heads(visit); });
  return {{0, std::numeric_limits<int64_t>::max(), id}};
}

std::shared_ptr<const text::ChatTemplate> Session::chat_or_none() const {
  require(chat_error_.empty(), files_.path, "its chat template cannot be used: {}", chat_error_);
  return chat_;
}

const text::ChatTemplate& Session::chat() const {
  chat_or_none();
  require(chat_ != nullptr, files_.path,
          "the model has no chat template (looked in tokenizer_config.json, chat_template.jinja and the GGUF "
          "metadata); "
          "use `nibble generate` with a plain --prompt");
  return *chat_;
}

std::vector<int32_t> Session::stop_ids() const { return eval::stop_ids(files_, *tokenizer_, chat_.get()); }

std::vector<int32_t> Session::encode_chat(const Json& messages) const {
  std::vector<int32_t> ids;
  for (const text::TokenSpan& token : text::encode_chat(*tokenizer_, chat().render(messages, true)))
    ids.push_back(token.id);
  return ids;
}

}  // namespace nibble::cli

#include "cli/session.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <set>

#include "base/file.h"
#include "base/log.h"

namespace nibble::cli {
namespace {

// Ids under "eos_token_id": a number, a list of numbers, or nothing.
void add_eos_ids(const Json& config, std::set<int32_t>& ids) {
  const auto found = config.is_object() ? config.find("eos_token_id") : config.end();
  if (found == config.end()) return;
  for (const Json& id : found->is_array() ? *found : Json::array({*found}))
    if (id.is_number_integer()) {
      const auto value = id.get<int64_t>();
      if (value >= 0 && value <= std::numeric_limits<int32_t>::max()) ids.insert(static_cast<int32_t>(value));
    }
}

Json generation_config(const std::string& model) {
  const std::filesystem::path path = std::filesystem::path(model) / "generation_config.json";
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) return nullptr;
  return parse_json(read_file(path.string(), 1 << 20), path.string());
}

}  // namespace

std::shared_ptr<const text::Tokenizer> load_tokenizer(const ModelOptions& options) {
  return text::load_tokenizer(options.tokenizer.empty() ? options.model : options.tokenizer);
}

Session::Session(const ModelOptions& options)
    : files_(io::open_model(options.model)), compute_(options.dtype == "f32" ? kF32 : kBF16) {
  tokenizer_ = load_tokenizer(options);
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
                     host_allocator());
  return {{0, std::numeric_limits<int64_t>::max(), id}};
}

const text::ChatTemplate& Session::chat() const {
  require(chat_error_.empty(), files_.path, "its chat template cannot be used: {}", chat_error_);
  require(chat_ != nullptr, files_.path,
          "the model has no chat template (looked in tokenizer_config.json, chat_template.jinja and the GGUF "
          "metadata); "
          "use `nibble generate` with a plain --prompt");
  return *chat_;
}

std::vector<int32_t> Session::stop_ids() const {
  std::set<int32_t> ids;
  if (tokenizer_->eos) ids.insert(*tokenizer_->eos);
  add_eos_ids(files_.config, ids);
  add_eos_ids(generation_config(files_.path), ids);
  if (chat_ != nullptr)
    if (const auto end = text::end_of_turn(*chat_, *tokenizer_)) ids.insert(*end);
  return {ids.begin(), ids.end()};
}

std::vector<int32_t> Session::encode_chat(const Json& messages) const {
  std::vector<int32_t> ids;
  for (const text::TokenSpan& token : text::encode_chat(*tokenizer_, chat().render(messages, true)))
    ids.push_back(token.id);
  return ids;
}

}  // namespace nibble::cli

#include "study/subject.h"

#include <limits>

#include "data/dataset.h"
#include "eval/generate.h"
#include "io/peft_adapter.h"
#include "models/classifier.h"
#include "train/loading.h"

namespace nibble::study {

Subject::Subject(const train::Recipe& recipe, const std::string& run, std::optional<double> held_out_loss)
    : files_(io::open_model(!run.empty() && !recipe.lora() ? run : recipe.model)),
      held_out_loss_(held_out_loss) {
  const bool adapted = !run.empty() && recipe.lora();
  if (adapted) files_ = models::with_head_of(io::read_adapter(run), std::move(files_));
  tokenizer_ = text::load_tokenizer(recipe.tokenizer.empty() ? recipe.model : recipe.tokenizer);
  stream_ = std::make_unique<backend::Stream>(host_allocator());
  model_ = train::load_base(files_, recipe, *stream_);
  context_ = std::make_unique<autograd::Context>(*stream_, host_allocator(), train::compute_dtype(recipe));
  if (!adapted) return;
  nn::attach_adapter([&](const nn::LinearVisitor& visit) { model_->visit_linears(visit); },
                     io::read_adapter(run), 0, host_allocator(),
                     [&](const nn::LinearVisitor& visit) { model_->visit_heads(visit); });
  context_->adapters = {{0, std::numeric_limits<int64_t>::max(), 0}};
}

std::shared_ptr<const text::ChatTemplate> Subject::chat() const {
  return data::training_template(*tokenizer_);
}

std::vector<int32_t> Subject::stop_ids() const { return eval::stop_ids(files_, *tokenizer_, chat().get()); }

double Subject::weights() {
  double count = 0;
  model_->visit_weights(
      [&](const std::string&, const quant::Weight& w) { count += static_cast<double>(w.numel()); });
  return count;
}

}  // namespace nibble::study

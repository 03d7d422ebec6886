#include "models/model.h"

#include <algorithm>

#include "backend/kernels/elementwise.h"
#include "models/registry.h"

namespace nibble::models {

Tensor Model::logits(Context& cx, const Variable& h, const Tensor& rows) const {
  const autograd::NoGrad no_grad(cx);
  Tensor picked = h.value();
  if (rows.defined()) {
    picked = cx.empty({rows.numel(), h.size(1)}, h.dtype(), "logits.h");
    backend::gather_rows(cx.stream(), h.value(), rows, picked);
  }
  ops::LinearArgs args = head(cx, h.size(0));
  args.f32_output = true;
  for (ops::LoraBranch& branch : args.lora) {
    require(!rows.defined() || (branch.begin == 0 && branch.end == h.size(0)), "logits",
            "rows of a stream with several adapters on the head cannot be picked; ask for all of them");
    branch.end = std::min(branch.end, picked.size(0));
  }
  Tensor scores = ops::linear(cx, Variable(picked), args).value();
  if (args.softcap > 0) backend::softcap(cx.stream(), scores, args.softcap, scores);
  return scores;
}

double Model::flops_per_token(bool source) const {
  double flops = 0;
  visit_linears([&](const nn::Linear& linear) {
    if (!nn::is_output_head(linear.name()) && over_source(linear) == source)
      flops += 2.0 * static_cast<double>(linear.in_features()) * static_cast<double>(linear.out_features());
  });
  return flops;
}

std::unique_ptr<Model> load_model(const io::ModelFiles& files, backend::Stream& stream,
                                  const nn::LoadOptions& options) {
  auto model = family_of(files.config, files.path).load(files, stream, options);
  model->note_quantized();
  return model;
}

}  // namespace nibble::models

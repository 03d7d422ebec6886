#include "io/bnb_parts.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/json.h"

namespace nibble::io {
namespace {

struct TorchType {
  const char* name;
  DType dtype;
};
constexpr TorchType kTorchTypes[] = {{"float32", kF32}, {"bfloat16", kBF16}, {"float16", kF16}};

DType logical_dtype(const std::string& name, const std::string& where) {
  for (const TorchType& t : kTorchTypes)
    if (name == t.name) return t.dtype;
  fail(where, "its quant_state names dtype \"{}\"; float32, bfloat16 and float16 can be read", name);
}

Shape logical_shape(const Json& state, const std::string& where) {
  const auto dims = json_get<std::vector<int64_t>>(state, "shape", where);
  int64_t n = 1;
  bool ok = !dims.empty() && dims.size() <= Shape::kMaxRank;
  for (int64_t d : dims) ok = ok && d > 0 && !__builtin_mul_overflow(n, d, &n) && n < (int64_t{1} << 60);
  require(ok, where, "its quant_state has an impossible shape {}", state["shape"].dump());
  Shape shape;
  for (int64_t d : dims) shape.push_back(d);
  return shape;
}

Tensor needed(const BnbParts& parts, const std::string& name, const std::string& where) {
  Tensor t = parts.tensor(name);
  require(t.defined(), where, "its part \"{}\" is missing; is a shard missing?", name);
  return t;
}

}  // namespace

quant::Weight read_bnb4(const BnbParts& parts, const std::string& name, const std::string& state_name,
                        const std::string& where) {
  const Tensor text = parts.bytes(state_name);
  const Json state = parse_json(
      {reinterpret_cast<const char*>(text.raw()), static_cast<size_t>(text.numel())}, where + " quant_state");
  quant::Weight w;
  const auto type = json_get<std::string>(state, "quant_type", where);
  require(type == "nf4" || type == "fp4", where, "its quant_type is \"{}\"; nf4 and fp4 can be read", type);
  w.format = &quant::find_format(type);
  w.shape = logical_shape(state, where);
  w.block = json_get<int64_t>(state, "blocksize", where);
  require(w.block >= 32 && w.block <= 4096 && (w.block & (w.block - 1)) == 0, where,
          "its blocksize is {}; powers of two from 32 to 4096 can be read", w.block);
  w.logical_dtype = logical_dtype(json_get<std::string>(state, "dtype", where), where);
  w.codes = parts.bytes(name);

  const Tensor map = needed(parts, name + ".quant_map", where);
  require(map.dtype() == kF32 && map.numel() == 16, where, "its quant_map should be 16 f32, got {} {}",
          map.numel(), dtype_name(map.dtype()));
  for (size_t i = 0; i < 16; ++i) {
    const float stored = map.data<float>()[i], ours = w.format->codebook->values[i];
    require(std::abs(stored - ours) <= 1e-6f, where, "its quant_map is not {}'s: entry {} is {}, expected {}",
            type, i, stored, ours);
  }

  Tensor absmax = needed(parts, name + ".absmax", where);
  if (state.contains("nested_offset")) {
    const auto nested_block = json_get<int64_t>(state, "nested_blocksize", where);
    const auto nested_dtype = json_get<std::string>(state, "nested_dtype", where);
    require(nested_block == 256 && nested_dtype == "float32", where,
            "its double quantization has blocks of {} in {}; 256 in float32 can be read", nested_block,
            nested_dtype);
    w.absmax_codes = std::move(absmax);
    w.nested_absmax = needed(parts, name + ".nested_absmax", where);
    w.nested_map = needed(parts, name + ".nested_quant_map", where);
    w.nested_offset = static_cast<float>(json_get<double>(state, "nested_offset", where));
    require(std::isfinite(w.nested_offset), where, "its nested_offset is {}", w.nested_offset);
  } else {
    w.absmax = std::move(absmax);
  }
  quant::require_consistent(w, where);
  return w;
}

quant::Weight read_bnb8(const BnbParts& parts, const std::string& name, const std::string& where) {
  const std::string module = name.substr(0, name.size() - std::string_view(".weight").size());
  if (const Tensor layout = parts.bytes(module + ".weight_format"); layout.defined())
    require(layout.numel() >= 1 && *layout.data<uint8_t>() == 0, where,
            "is LLM.int8 in a layout of old GPUs; save it again with a newer bitsandbytes");
  quant::Weight w;
  w.format = &quant::find_format("int8");
  w.codes = needed(parts, name, where);
  w.absmax = needed(parts, module + ".SCB", where);
  w.shape = w.codes.shape();
  w.logical_dtype = kF16;
  require(w.shape.rank() == 2, where, "LLM.int8 weights are matrices, got {}", w.shape.str());
  quant::require_consistent(w, where);
  return w;
}

std::string bnb_quant_state(const quant::Weight& w) {
  Json state;
  state["quant_type"] = w.format->name;
  state["blocksize"] = w.block;
  for (const TorchType& t : kTorchTypes)
    if (t.dtype == w.logical_dtype) state["dtype"] = t.name;
  state["shape"] = Json::array();
  for (int i = 0; i < w.shape.rank(); ++i) state["shape"].push_back(w.shape[i]);
  if (w.double_quantized()) {
    state["nested_blocksize"] = 256;
    state["nested_dtype"] = "float32";
    state["nested_offset"] = static_cast<double>(w.nested_offset);
  }
  return state.dump();
}

}  // namespace nibble::io

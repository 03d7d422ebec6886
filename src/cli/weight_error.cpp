#include "cli/weight_error.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/kernels/quantize.h"
#include "base/json.h"
#include "base/parallel.h"

namespace nibble::cli {

void WeightError::add(const WeightError& other) {
  squared += other.squared;
  power += other.power;
  max_abs = std::max(max_abs, other.max_abs);
  values += other.values;
}

double WeightError::relative() const { return power > 0 ? std::sqrt(squared / power) : 0; }
double WeightError::rmse() const { return values > 0 ? std::sqrt(squared / static_cast<double>(values)) : 0; }
double WeightError::snr_db() const { return squared > 0 && power > 0 ? 10 * std::log10(power / squared) : 0; }

Json WeightError::json() const {
  return {{"relative", relative()},
          {"rmse", rmse()},
          {"max_abs", max_abs},
          {"snr_db", squared > 0 ? Json(snr_db()) : Json()}};
}

WeightError measure_error(backend::Stream& stream, const quant::Weight& original,
                          const quant::Weight& converted, const std::string& name) {
  const int64_t rows = original.rows(), cols = original.cols();
  const int64_t at_once = std::max<int64_t>(1, (int64_t{1} << 20) / std::max<int64_t>(cols, 1));
  const Shape piece{std::min(at_once, rows), cols};
  Tensor before = Tensor::empty(host_allocator(), piece, kF32, "error.before");
  Tensor after = Tensor::empty(host_allocator(), piece, kF32, "error.after");
  WeightError sum;
  for (int64_t begin = 0; begin < rows; begin += at_once) {
    const int64_t end = std::min(rows, begin + at_once), n = (end - begin) * cols;
    Tensor a = before.rows(0, end - begin), b = after.rows(0, end - begin);
    backend::decode_weight(stream, original, begin, end, a);
    backend::decode_weight(stream, converted, begin, end, b);
    constexpr int64_t kGrain = 1 << 16;
    std::vector<WeightError> parts(static_cast<size_t>((n + kGrain - 1) / kGrain));
    parallel_for(n, kGrain, [&](int64_t from, int64_t to) {
      WeightError& p = parts[static_cast<size_t>(from / kGrain)];
      const float *x = a.data<float>(), *y = b.data<float>();
      for (int64_t i = from; i < to; ++i) {
        const double e = double{y[i]} - double{x[i]};
        p.squared += e * e;
        p.power += double{x[i]} * double{x[i]};
        p.max_abs = std::max(p.max_abs, std::abs(e));
      }
      p.values = to - from;
    });
    for (const WeightError& p : parts) sum.add(p);
  }
  require(std::isfinite(sum.squared) && std::isfinite(sum.power), name,
          "holds a NaN or an infinity; the file is damaged or was saved by a run that diverged");
  return sum;
}

bool is_linear(const io::WeightInfo& info) {
  const std::string& n = info.name;
  return info.shape.rank() == 2 && n.ends_with(".weight") && n.find("embed") == std::string::npos &&
         n.find("lm_head") == std::string::npos && !n.ends_with(".wte.weight") &&
         !n.ends_with(".wpe.weight") && n.find("norm") == std::string::npos;
}

}  // namespace nibble::cli

// Models of which only config.json is known: what a plan needs and no more.
#include "base/error.h"
#include "io/weights.h"

namespace nibble::io {
namespace {

class ShapeSource : public WeightSource {
 public:
  explicit ShapeSource(std::string path) : path_(std::move(path)), allocator_(make_meta_allocator()) {}
  bool has(const std::string&) const override { return false; }
  quant::Weight read(const std::string& name) const override {
    fail(path_, "has no weights, only config.json; \"{}\" cannot be read", name);
  }
  quant::Weight read_as(const std::string& name, const Shape& expected) const override {
    return quant::dense_weight(Tensor::empty(*allocator_, expected, kBF16, name));
  }
  std::vector<WeightInfo> list() const override { return {}; }

 private:
  std::string path_;
  std::shared_ptr<Allocator> allocator_;
};

}  // namespace

ModelFiles shapes_of(const std::string& path, Json config) {
  ModelFiles files;
  files.path = path;
  files.container = "shapes";
  files.config = std::move(config);
  files.weights = std::make_shared<ShapeSource>(path);
  return files;
}

}  // namespace nibble::io

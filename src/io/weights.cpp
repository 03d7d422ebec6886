#include "io/weights.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>

#include "base/error.h"
#include "base/file.h"
#include "base/mmap.h"
#include "base/parallel.h"
#include "base/text.h"
#include "io/sources.h"

namespace nibble::io {
namespace {

namespace fs = std::filesystem;

std::string hash_file(const std::string& path) {
  constexpr int64_t kPiece = int64_t{16} << 20;
  const auto map = MappedFile::open(path);
  const auto bytes = map->bytes();
  const auto size = static_cast<int64_t>(bytes.size());
  std::vector<std::string> pieces(static_cast<size_t>((size + kPiece - 1) / kPiece));
  parallel_for(size, kPiece, [&](int64_t begin, int64_t end) {
    const auto piece = bytes.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    pieces[static_cast<size_t>(begin / kPiece)] = hash_bytes(piece);
    map->forget(piece);
  });
  std::string all = std::to_string(size);
  for (const std::string& p : pieces) all += ":" + p;
  return hash_text(all);
}

// What changes when a file does, as far as the file system tells.
std::string stamp(const std::string& path) {
  struct stat info {};
  require(::stat(path.c_str(), &info) == 0, path, "is gone: {}", std::strerror(errno));
  return fmt::format("{}:{}:{}:{}.{}", info.st_dev, info.st_ino, info.st_size, info.st_mtim.tv_sec,
                     info.st_mtim.tv_nsec);
}

}  // namespace

quant::Weight WeightSource::read_as(const std::string& name, const Shape& expected) const {
  quant::Weight w = read(name);
  require(w.shape == expected, name,
          "is {} in the file but this model expects {}; does config.json belong to these weights?",
          w.shape.str(), expected.str());
  return w;
}

std::string ModelFiles::hash() const {
  static std::mutex mutex;
  static std::map<std::string, std::string> known;  // by stamp
  const std::scoped_lock lock(mutex);
  std::string all;
  for (const std::string& file : files) {
    std::string& h = known[stamp(file)];
    if (h.empty()) h = hash_file(file);
    all += h;
  }
  return hash_text(all);
}

std::vector<std::string> ModelFiles::lineage() const {
  std::vector<std::string> all = {hash()};
  all.insert(all.end(), sources.begin(), sources.end());
  return all;
}

void fail_missing(const std::string& path, const std::string& name, const std::vector<WeightInfo>& known) {
  std::vector<std::string> names;
  for (const WeightInfo& w : known) names.push_back(w.name);
  const std::string near = nearest_name(name, names);
  fail(path, "has no weight \"{}\"{}", name,
       near.empty() ? " (`nibble inspect model` lists what it has)"
                    : fmt::format("; the nearest is \"{}\"", near));
}

ModelFiles open_model(const std::string& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  require(fs::exists(status), path,
          "no such file or directory; a model is a Hugging Face directory, a .gguf, a .safetensors or a "
          "llama2.c .bin");
  if (fs::is_directory(status)) return open_hugging_face(path);
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  if (std::memcmp(magic, "GGUF", 4) == 0) return open_gguf_model(path);
  const std::string extension = lower_ascii(fs::path(path).extension().string());
  if (extension == ".safetensors") return open_hugging_face(path);
  require(std::memcmp(magic, "PK\3\4", 4) != 0 && extension != ".pt" && extension != ".pth", path,
          "is a PyTorch pickle, which is not read here; save the model as safetensors (save_pretrained does) "
          "and give that");
  require(extension != ".gguf", path, "does not start with \"GGUF\"; is the download complete?");
  require(extension == ".bin", path,
          "is no container known here; a model is a Hugging Face directory, a .gguf, a .safetensors or a "
          "llama2.c .bin");
  return open_llama2c(path);
}

}  // namespace nibble::io

// Pre-tokenizers: text into words; a piece of the vocabulary never reaches over a word's border.
// Kinds and behaviour are those of tokenizer.json ("pre_tokenizer"). Byte-level models work on the bytes
// themselves: the ByteLevel step only adds its space and splits, and the vocabulary is brought to bytes when
// it is loaded. Threading: const after construction.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/json_fwd.h"
#include "text/aligned.h"

namespace nibble::text {

// A reference to whatever takes the words, cheap to call once per word.
class Sink {
 public:
  template <class F, class = std::enable_if_t<!std::is_same_v<std::remove_cvref_t<F>, Sink>>>
  Sink(F&& f)
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* object, const Piece& piece) {
          (*static_cast<std::remove_reference_t<F>*>(object))(piece);
        }) {}
  void operator()(const Piece& piece) const { call_(object_, piece); }

 private:
  void* object_;
  void (*call_)(void*, const Piece&);
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Gives the words of the piece, none of them empty, in order.
  virtual void split(Arena& arena, const Piece& piece, Sink words) const = 0;
};

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// From the "pre_tokenizer" object of a tokenizer.json; null for a JSON null. Errors: Error{where} names the
// unknown type.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Json& spec, const std::string& where);
// A Split step for each pattern, one after the other, each piece isolated.
std::unique_ptr<PreTokenizer> make_regex_splits(const std::vector<std::string>& patterns,
                                                const std::string& where);
// Whether a ByteLevel step is in the specification: then the vocabulary is spelled in GPT-2's byte alphabet.
bool has_byte_level(const Json& spec);

inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace nibble::text

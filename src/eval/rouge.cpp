#include "eval/rouge.h"

#include <algorithm>
#include <array>
#include <map>
#include <unordered_map>

#include "base/error.h"
#include "eval/porter.h"

namespace nibble::eval {
namespace {

using Ids = std::vector<int32_t>;

RougeScore score(int64_t shared, int64_t predicted, int64_t wanted) {
  RougeScore s;
  s.precision = static_cast<double>(shared) / static_cast<double>(std::max<int64_t>(predicted, 1));
  s.recall = static_cast<double>(shared) / static_cast<double>(std::max<int64_t>(wanted, 1));
  if (s.precision + s.recall > 0) s.f = 2 * s.precision * s.recall / (s.precision + s.recall);
  return s;
}

template <size_t n>
std::map<std::array<int32_t, n>, int64_t> grams(const Ids& ids) {
  std::map<std::array<int32_t, n>, int64_t> counts;
  for (size_t i = 0; i + n <= ids.size(); ++i) {
    std::array<int32_t, n> gram;
    std::copy_n(ids.begin() + static_cast<ptrdiff_t>(i), n, gram.begin());
    ++counts[gram];
  }
  return counts;
}

template <size_t n>
RougeScore overlap(const Ids& prediction, const Ids& reference) {
  const auto wanted = grams<n>(reference);
  int64_t shared = 0;
  for (const auto& [gram, count] : grams<n>(prediction))
    if (const auto it = wanted.find(gram); it != wanted.end()) shared += std::min(count, it->second);
  const auto total = [](const Ids& ids) {
    return std::max<int64_t>(0, static_cast<int64_t>(ids.size()) - static_cast<int64_t>(n) + 1);
  };
  return score(shared, total(prediction), total(reference));
}

int64_t common_subsequence(const Ids& a, const Ids& b) {
  std::vector<int32_t> best(b.size() + 1, 0);  // of what was read of a, and of the first j of b
  for (const int32_t id : a) {
    int32_t diagonal = 0;
    for (size_t j = 0; j < b.size(); ++j) {
      const int32_t above = best[j + 1];
      best[j + 1] = id == b[j] ? diagonal + 1 : std::max(above, best[j]);
      diagonal = above;
    }
  }
  return best.back();
}

}  // namespace

std::vector<std::string> rouge_words(std::string_view text, bool stem) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) words.push_back(stem && word.size() > 3 ? porter_stem(word) : word);
    word.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      word += c;
    } else if (c >= 'A' && c <= 'Z') {
      word += static_cast<char>(c - 'A' + 'a');
    } else if (text.substr(i).starts_with("\u212A")) {  // the Kelvin sign is a k in lower case
      word += 'k';
      i += 2;
    } else if (text.substr(i).starts_with("\u0130")) {  // İ becomes an i and a combining dot
      word += 'i';
      end_word();
      ++i;
    } else {
      end_word();
    }
  }
  end_word();
  return words;
}

Rouge rouge(std::string_view prediction, std::string_view reference, bool stem) {
  std::unordered_map<std::string, int32_t> numbers;
  const auto ids = [&](std::string_view text) {
    Ids out;
    for (std::string& word : rouge_words(text, stem))
      out.push_back(numbers.try_emplace(std::move(word), static_cast<int32_t>(numbers.size())).first->second);
    return out;
  };
  const Ids p = ids(prediction), r = ids(reference);
  return {overlap<1>(p, r), overlap<2>(p, r),
          score(common_subsequence(p, r), static_cast<int64_t>(p.size()), static_cast<int64_t>(r.size()))};
}

Rouge rouge(std::string_view prediction, std::span<const std::string> references, bool stem) {
  require(!references.empty(), "rouge", "there is no reference to compare with");
  Rouge best = rouge(prediction, references[0], stem);
  for (const std::string& reference : references.subspan(1)) {
    const Rouge other = rouge(prediction, reference, stem);
    for (RougeScore Rouge::*one : {&Rouge::one, &Rouge::two, &Rouge::l})
      if ((other.*one).f > (best.*one).f) best.*one = other.*one;
  }
  return best;
}

}  // namespace nibble::eval

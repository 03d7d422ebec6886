// ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), equal to the `rouge-score` package 0.1.2 digit for digit.
//
// Words are runs of a–z and 0–9 of the lower-cased text. With stemming, words of more than three letters are
// cut to their Porter stem. ROUGE-N counts n-grams that both texts have (at most as often as either has
// them); ROUGE-L is the longest common subsequence of the whole texts.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::eval {

struct RougeScore {
  double precision = 0, recall = 0, f = 0;
};

struct Rouge {
  RougeScore one, two, l;
};

std::vector<std::string> rouge_words(std::string_view text, bool stem);

Rouge rouge(std::string_view prediction, std::string_view reference, bool stem);
// For each of the three the reference with the highest F; the first of equals.
// REQUIRES: at least one reference.
Rouge rouge(std::string_view prediction, std::span<const std::string> references, bool stem);

}  // namespace nibble::eval

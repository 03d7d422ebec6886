#include "eval/porter.h"

#include <span>
#include <utility>
#include <vector>

namespace nibble::eval {
namespace {

// Per letter: is it a consonant? y is one at the beginning and after a vowel.
std::vector<bool> consonants(std::string_view word) {
  std::vector<bool> out(word.size());
  for (size_t i = 0; i < word.size(); ++i) switch (word[i]) {
      case 'a':
      case 'e':
      case 'i':
      case 'o':
      case 'u':
        out[i] = false;
        break;
      case 'y':
        out[i] = i == 0 || !out[i - 1];
        break;
      default:
        out[i] = true;
    }
  return out;
}

// m of [C](VC){m}[V].
int measure(std::string_view stem) {
  const std::vector<bool> c = consonants(stem);
  int m = 0;
  for (size_t i = 1; i < c.size(); ++i) m += !c[i - 1] && c[i];
  return m;
}

bool has_vowel(std::string_view stem) {
  for (const bool c : consonants(stem))
    if (!c) return true;
  return false;
}

bool ends_double_consonant(std::string_view word) {
  return word.size() >= 2 && word[word.size() - 1] == word[word.size() - 2] && consonants(word).back();
}

// *o: consonant, vowel, consonant other than w, x, y; NLTK adds words of a vowel and a consonant.
bool ends_cvc(std::string_view word) {
  const std::vector<bool> c = consonants(word);
  const size_t n = word.size();
  if (n == 2) return !c[0] && c[1];
  const char last = n == 0 ? ' ' : word[n - 1];
  return n >= 3 && c[n - 3] && !c[n - 2] && c[n - 1] && last != 'w' && last != 'x' && last != 'y';
}

std::string cut(std::string_view word, size_t letters) {
  return std::string(word.substr(0, word.size() - letters));
}

using Rule = std::pair<std::string_view, std::string_view>;

// The first rule whose suffix the word has decides: it is applied when the stem's measure exceeds `more`.
std::string apply(std::string word, std::span<const Rule> rules, int more) {
  for (const auto& [suffix, replacement] : rules)
    if (word.ends_with(suffix)) {
      std::string stem = cut(word, suffix.size());
      return measure(stem) > more ? stem.append(replacement) : word;
    }
  return word;
}

std::string plural(std::string word) {  // step 1a
  if (word.ends_with("ies")) return cut(word, word.size() == 4 ? 1 : 2);
  if (word.ends_with("sses")) return cut(word, 2);
  if (word.ends_with("s") && !word.ends_with("ss")) return cut(word, 1);
  return word;
}

std::string past_or_gerund(std::string word) {  // step 1b
  if (word.ends_with("ied")) return cut(word, word.size() == 4 ? 1 : 2);
  if (word.ends_with("eed")) return measure(cut(word, 3)) > 0 ? cut(word, 1) : word;
  std::string stem;
  if (word.ends_with("ed"))
    stem = cut(word, 2);
  else if (word.ends_with("ing"))
    stem = cut(word, 3);
  if (!has_vowel(stem)) return word;
  if (stem.ends_with("at") || stem.ends_with("bl") || stem.ends_with("iz")) return stem + "e";
  if (ends_double_consonant(stem)) {
    const char last = stem.back();
    return last == 'l' || last == 's' || last == 'z' ? stem : cut(stem, 1);
  }
  return measure(stem) == 1 && ends_cvc(stem) ? stem + "e" : stem;
}

std::string final_y(std::string word) {  // step 1c
  if (word.size() > 2 && word.back() == 'y' && consonants(word)[word.size() - 2]) word.back() = 'i';
  return word;
}

std::string double_suffix(std::string word) {  // step 2
  static constexpr Rule kRules[] = {
      {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"},
      {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"}, {"eli", "e"},     {"ousli", "ous"},
      {"ization", "ize"}, {"ation", "ate"},   {"ator", "ate"},  {"alism", "al"},  {"iveness", "ive"},
      {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},  {"iviti", "ive"}, {"biliti", "ble"},
      {"fulli", "ful"}};
  while (word.ends_with("alli") && measure(cut(word, 4)) > 0) word = cut(word, 2);
  // The l of -logi belongs to the stem, so that geo-, theo- and the like count as stems.
  if (word.ends_with("logi")) return measure(cut(word, 3)) > 0 ? cut(word, 1) : word;
  return apply(std::move(word), kRules, 0);
}

std::string single_suffix(std::string word) {  // step 3
  static constexpr Rule kRules[] = {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"},
                                    {"ical", "ic"},  {"ful", ""},   {"ness", ""}};
  return apply(std::move(word), kRules, 0);
}

std::string last_suffix(std::string word) {  // step 4
  static constexpr Rule kRules[] = {{"al", ""},   {"ance", ""}, {"ence", ""}, {"er", ""},    {"ic", ""},
                                    {"able", ""}, {"ible", ""}, {"ant", ""},  {"ement", ""}, {"ment", ""},
                                    {"ent", ""},  {"ou", ""},   {"ism", ""},  {"ate", ""},   {"iti", ""},
                                    {"ous", ""},  {"ive", ""},  {"ize", ""}};
  if (word.ends_with("ion")) {  // no other suffix of this step ends so
    const std::string stem = cut(word, 3);
    return measure(stem) > 1 && (stem.back() == 's' || stem.back() == 't') ? stem : word;
  }
  return apply(std::move(word), kRules, 1);
}

std::string final_e(std::string word) {  // step 5
  if (word.ends_with("e")) {
    const std::string stem = cut(word, 1);
    const int m = measure(stem);
    if (m > 1 || (m == 1 && !ends_cvc(stem))) word = stem;
  }
  if (word.ends_with("ll") && measure(cut(word, 1)) > 1) word.pop_back();
  return word;
}

}  // namespace

std::string porter_stem(std::string_view word) {
  static constexpr Rule kIrregular[] = {
      {"sky", "sky"},        {"skies", "sky"},       {"dying", "die"},        {"lying", "lie"},
      {"tying", "tie"},      {"news", "news"},       {"innings", "inning"},   {"inning", "inning"},
      {"outings", "outing"}, {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
      {"howe", "howe"},      {"proceed", "proceed"}, {"exceed", "exceed"},    {"succeed", "succeed"}};
  for (const auto& [form, stem] : kIrregular)
    if (word == form) return std::string(stem);
  std::string out(word);
  if (out.size() <= 2) return out;
  for (auto* step : {plural, past_or_gerund, final_y, double_suffix, single_suffix, last_suffix, final_e})
    out = step(std::move(out));
  return out;
}

}  // namespace nibble::eval

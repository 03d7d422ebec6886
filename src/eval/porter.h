// The Porter stemmer (Porter 1980, "An algorithm for suffix stripping") with the deviations that NLTK made
// its default: short words in -ies and -ied, y after a consonant only, a table of irregular forms, and the
// suffixes -alli, -fulli and -logi. Equal to nltk.stem.porter.PorterStemmer().stem().
#pragma once
#include <string>
#include <string_view>

namespace nibble::eval {

// REQUIRES: lower-case ASCII letters and digits (digits count as consonants).
std::string porter_stem(std::string_view word);

}  // namespace nibble::eval

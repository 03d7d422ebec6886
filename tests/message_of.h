// The message of the Error that f() throws, for tests of bad input.
#pragma once
#include <string>

#include "base/error.h"

namespace nibble {

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace nibble

//===- Result.h - A value or the reason why there is none -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_RESULT_H
#define NIBBLE_NUMERICS_RESULT_H

#include <optional>
#include <string>
#include <utility>

namespace nibble {

/// Why a function has no value: a sentence without a final full stop that says
/// what is wrong and what would be right.
struct Failure {
  std::string message;
};

/// A value, or the `Failure` that explains why there is none.
template <typename T> class Result {
public:
  Result(T value) : content(std::move(value)) {}
  Result(Failure failure) : reason(std::move(failure.message)) {}

  explicit operator bool() const { return content.has_value(); }
  // The caller has asked before.
  // NOLINTBEGIN(bugprone-unchecked-optional-access)
  T &operator*() { return *content; }
  const T &operator*() const { return *content; }
  T *operator->() { return &*content; }
  const T *operator->() const { return &*content; }
  // NOLINTEND(bugprone-unchecked-optional-access)

  /// Empty where there is a value.
  const std::string &error() const { return reason; }

private:
  std::optional<T> content;
  std::string reason;
};

} // namespace nibble

#endif // NIBBLE_NUMERICS_RESULT_H

// Result<T>: the value of an operation, or the Error that says why there is none.
//
// Errors are for operations that failed; bugs use MUSTER_CHECK. A message tells the user what was wrong,
// where, and after the last ": " what to do. It carries no prefix such as "muster:"; the shell adds that.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "lib/base/check.h"

namespace muster {

enum class ErrorCode {
  kInvalidArgument,   // the input is wrong; the same call will never succeed
  kNotFound,          // the named thing does not exist
  kAlreadyExists,     // the named thing exists already
  kPermissionDenied,  // the caller may not do this
  kRefused,           // well-formed, but a rule forbids it (limit, state, can never fit)
  kUnavailable,       // cannot be reached now; trying again may help
  kLimitReached,      // a named limit is reached; trying later may help
  kCorrupt,           // stored or received bytes are damaged
  kIo,                // the operating system refused; the message carries errno's text
  kInternal,          // should not happen
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;

  friend bool operator==(const Error&, const Error&) = default;
};

struct Unit {
  friend bool operator==(const Unit&, const Unit&) = default;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : v_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const { return v_.index() == 0; }
  explicit operator bool() const { return ok(); }

  // The value; calling this on an error is a bug.
  T& value() & {
    MUSTER_CHECK(ok());
    return std::get<0>(v_);
  }
  const T& value() const& {
    MUSTER_CHECK(ok());
    return std::get<0>(v_);
  }
  T&& value() && {
    MUSTER_CHECK(ok());
    return std::get<0>(std::move(v_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // The error; calling this on a value is a bug.
  const Error& error() const& {
    MUSTER_CHECK(!ok());
    return std::get<1>(v_);
  }

 private:
  std::variant<T, Error> v_;
};

using Status = Result<Unit>;
inline Status ok_status() {
  return Unit{};
}

inline Error make_error(ErrorCode code, std::string message) {
  return Error{code, std::move(message)};
}
inline Error invalid_argument(std::string message) {
  return Error{ErrorCode::kInvalidArgument, std::move(message)};
}

// Returns the error of EXPR from the enclosing function, if it has one.
#define MUSTER_TRY(expr)                                \
  do {                                                  \
    if (auto muster_try_ = (expr); !muster_try_.ok()) { \
      return muster_try_.error();                       \
    }                                                   \
  } while (false)

#define MUSTER_CONCAT_INNER(a, b) a##b
#define MUSTER_CONCAT(a, b) MUSTER_CONCAT_INNER(a, b)
// MUSTER_ASSIGN(auto x, f()): x is the value, or the enclosing function returns the error.
#define MUSTER_ASSIGN(decl, expr)                           \
  auto MUSTER_CONCAT(muster_result_, __LINE__) = (expr);    \
  if (!MUSTER_CONCAT(muster_result_, __LINE__).ok()) {      \
    return MUSTER_CONCAT(muster_result_, __LINE__).error(); \
  }                                                         \
  decl = std::move(MUSTER_CONCAT(muster_result_, __LINE__)).value()

}  // namespace muster

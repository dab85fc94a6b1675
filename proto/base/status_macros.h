// Early return on error for absl::Status and absl::StatusOr, the error currency of server, client and job boundary.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define FT_RETURN_IF_ERROR(expr)                             \
  do {                                                       \
    if (absl::Status ft_status_ = (expr); !ft_status_.ok()) \
      return ft_status_;                                     \
  } while (false)

#define FT_CONCAT_INNER_(a, b) a##b
#define FT_CONCAT_(a, b) FT_CONCAT_INNER_(a, b)

// FT_ASSIGN_OR_RETURN(auto file, Open(path));
#define FT_ASSIGN_OR_RETURN(lhs, expr) \
  FT_ASSIGN_OR_RETURN_IMPL_(FT_CONCAT_(ft_statusor_, __LINE__), lhs, expr)
#define FT_ASSIGN_OR_RETURN_IMPL_(statusor, lhs, expr) \
  auto statusor = (expr);                              \
  if (!statusor.ok()) return statusor.status();        \
  lhs = std::move(statusor).value()

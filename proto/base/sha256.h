// SHA-256 of byte streams and files, as lower-case hex.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace finetuned {

// Incremental hash: Update any number of times, then Finish once.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(const void* data, size_t size_bytes);
  void Update(std::string_view data) { Update(data.data(), data.size()); }
  // 64 lower-case hex digits. The object is spent afterwards.
  std::string Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string Sha256Hex(std::string_view data);

// Hash of a whole file, read in 1 MiB pieces. NOT_FOUND or UNAVAILABLE with the path and errno text.
absl::StatusOr<std::string> Sha256File(const std::string& path);

}  // namespace finetuned

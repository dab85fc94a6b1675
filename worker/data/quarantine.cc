#include "worker/data/quarantine.h"

#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "worker/data/value.h"

namespace finetuned {

QuarantineWriter::~QuarantineWriter() {
  if (file_ != nullptr) std::fclose(file_);
}

absl::Status QuarantineWriter::Add(std::string_view reason, std::string_view detail,
                                   std::string_view file, int64_t line,
                                   std::string_view record_json, std::string_view raw) {
  if (path_.empty()) return absl::OkStatus();
  if (file_ == nullptr) {
    file_ = std::fopen(path_.c_str(), "we");
    if (file_ == nullptr) return ErrnoStatus(errno, absl::StrCat("creating ", path_));
  }
  std::string text = "{\"reason\":";
  AppendJsonString(reason, text);
  text += ",\"detail\":";
  AppendJsonString(detail, text);
  text += ",\"file\":";
  AppendJsonString(file, text);
  absl::StrAppend(&text, ",\"line\":", line, ",\"record\":");
  if (record_json.empty()) {
    AppendJsonString(raw, text);
  } else {
    text += record_json;
  }
  text += "}\n";
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size()) {
    return ErrnoStatus(errno, absl::StrCat("writing ", path_));
  }
  ++count_;
  return absl::OkStatus();
}

absl::Status QuarantineWriter::Finish() {
  if (file_ == nullptr) return absl::OkStatus();
  const bool written = std::fflush(file_) == 0 && fsync(fileno(file_)) == 0;
  const int error = errno;
  std::fclose(file_);
  file_ = nullptr;
  return written ? absl::OkStatus() : ErrnoStatus(error, absl::StrCat("writing ", path_));
}

}  // namespace finetuned

#include "server/launcher/process_runner.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/base/file_util.h"

namespace finetuned {

std::string SignalName(int signal) {
  const char* name = sigabbrev_np(signal);
  return name ? absl::StrCat("SIG", name) : absl::StrCat("signal ", signal);
}

std::string ProcessExit::Describe() const {
  if (!known) return "ended while the server was away";
  if (signal == 0) return absl::StrCat("exit code ", exit_code);
  std::string text = absl::StrCat("killed by ", SignalName(signal));
  if (signal == SIGKILL) text += " (by hand, or by the kernel when host memory ran out)";
  return text;
}

std::string ToUtf8(std::string_view bytes) {
  std::string text;
  for (size_t i = 0; i < bytes.size();) {
    const auto lead = static_cast<unsigned char>(bytes[i]);
    // Length of the sequence, and what its second byte may be: no overlong forms, no surrogates,
    // nothing above U+10FFFF (Unicode, table 3-7).
    size_t length = 0;
    unsigned char low = 0x80, high = 0xbf;
    if (lead < 0x80) {
      length = 1;
    } else if (lead >= 0xc2 && lead <= 0xdf) {
      length = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
      length = 3;
      if (lead == 0xe0) low = 0xa0;
      if (lead == 0xed) high = 0x9f;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
      length = 4;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;
    }
    bool valid = length > 0 && i + length <= bytes.size();
    for (size_t k = 1; valid && k < length; ++k) {
      const auto byte = static_cast<unsigned char>(bytes[i + k]);
      valid = byte >= (k == 1 ? low : 0x80) && byte <= (k == 1 ? high : 0xbf);
    }
    if (valid) {
      text.append(bytes.substr(i, length));
      i += length;
    } else {
      text.push_back('?');
      ++i;
    }
  }
  return text;
}

absl::StatusOr<int64_t> ProcessStartTicks(int64_t pid) {
  const std::string path = absl::StrCat("/proc/", pid, "/stat");
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, path);
  char buffer[1024];
  const ssize_t size = read(fd, buffer, sizeof(buffer));
  close(fd);
  if (size <= 0) return absl::NotFoundError(absl::StrCat("no process ", pid));
  // "pid (name) state ppid …": the name may hold anything, so fields are counted from the last ')'.
  absl::string_view text(buffer, static_cast<size_t>(size));
  const size_t name_end = text.rfind(") ");
  if (name_end == absl::string_view::npos) {
    return absl::InternalError(absl::StrCat(path, " is not understood"));
  }
  const std::vector<absl::string_view> fields = absl::StrSplit(text.substr(name_end + 2), ' ');
  int64_t ticks = 0;
  if (fields.size() < 20 || !absl::SimpleAtoi(fields[19], &ticks)) {
    return absl::InternalError(absl::StrCat(path, " has no start time"));
  }
  if (fields[0] == "Z" || fields[0] == "X") {
    return absl::NotFoundError(absl::StrCat("process ", pid, " has ended"));
  }
  return ticks;
}

}  // namespace finetuned

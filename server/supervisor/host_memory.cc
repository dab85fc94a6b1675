#include "server/supervisor/host_memory.h"

#include <sched.h>

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "proto/base/file_util.h"

namespace finetuned {
namespace {

bool ParseBytes(std::string_view text, uint64_t* bytes) {
  return absl::SimpleAtoi(absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size())),
                          bytes);
}

}  // namespace

HostMemory ParseHostMemory(std::string_view meminfo, std::string_view cgroup_max,
                           std::string_view cgroup_current) {
  HostMemory memory;
  for (absl::string_view line :
       absl::StrSplit(absl::string_view(meminfo.data(), meminfo.size()), '\n')) {
    // "MemAvailable:   23922380 kB"
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    uint64_t kib = 0;
    if (words.size() < 2 || !absl::SimpleAtoi(words[1], &kib)) continue;
    if (words[0] == "MemTotal:") memory.total_bytes = kib << 10;
    if (words[0] == "MemAvailable:") memory.available_bytes = kib << 10;
  }
  uint64_t limit = 0, used = 0;
  if (ParseBytes(cgroup_max, &limit)) {
    memory.total_bytes = std::min(memory.total_bytes, limit);
    if (ParseBytes(cgroup_current, &used)) {
      memory.available_bytes =
          std::min(memory.available_bytes, limit > used ? limit - used : uint64_t{0});
    }
  }
  return memory;
}

HostMemory ReadHostMemory() {
  return ParseHostMemory(ReadFile("/proc/meminfo").value_or(""),
                         ReadFile("/sys/fs/cgroup/memory.max").value_or(""),
                         ReadFile("/sys/fs/cgroup/memory.current").value_or(""));
}

int UsableProcessors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace finetuned

// Memory of this machine, as jobs may use it.
#pragma once

#include <cstdint>
#include <string_view>

namespace finetuned {

struct HostMemory {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;
};

// /proc/meminfo (MemTotal, MemAvailable), cut to what the cgroup (v2, memory.max) still allows.
// Zeros where there is no such file.
HostMemory ReadHostMemory();

// The parsing alone. `cgroup_max` and `cgroup_current` as in the files; empty or "max": no limit.
HostMemory ParseHostMemory(std::string_view meminfo, std::string_view cgroup_max,
                           std::string_view cgroup_current);

// Processors this process may use.
int UsableProcessors();

}  // namespace finetuned

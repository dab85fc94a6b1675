#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "server/metrics/metrics.h"

namespace finetuned {
namespace {

// Boot time (Unix seconds) from /proc/stat, 0 if it cannot be read.
double BootTime() {
  std::ifstream stat("/proc/stat");
  std::string key;
  double value = 0;
  while (stat >> key) {
    if (key == "btime") return stat >> value ? value : 0;
    std::getline(stat, key);
  }
  return 0;
}

}  // namespace

void ProcessMetrics::Update(Metrics& metrics) {
  std::lock_guard<std::mutex> lock(mutex_);
  const double ticks = sysconf(_SC_CLK_TCK);
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  // The name, field 2, may hold spaces and parentheses; fields are counted from behind it
  // (proc(5)): state is field 3.
  const size_t end = line.rfind(") ");
  if (end == std::string::npos) return;
  const std::vector<std::string> fields = absl::StrSplit(line.substr(end + 2), ' ');
  auto field = [&](size_t number) {
    double value = 0;
    if (number - 3 < fields.size()) (void)absl::SimpleAtod(fields[number - 3], &value);
    return value;
  };
  const double cpu = (field(14) + field(15)) / ticks;
  if (cpu > counted_cpu_seconds_) {
    metrics.Add(MetricId::kProcessCpu, cpu - counted_cpu_seconds_);
    counted_cpu_seconds_ = cpu;
  }
  metrics.Set(MetricId::kProcessStart, BootTime() + field(22) / ticks);
  metrics.Set(MetricId::kProcessVirtual, field(23));
  metrics.Set(MetricId::kProcessResident, field(24) * sysconf(_SC_PAGESIZE));
  std::error_code error;
  int descriptors = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error))
    descriptors += !entry.path().empty();
  metrics.Set(MetricId::kProcessFds, descriptors);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
    metrics.Set(MetricId::kProcessMaxFds, static_cast<double>(limit.rlim_cur));
}

}  // namespace finetuned

// The server's Prometheus metrics: the table metrics.def, values by id, and the exporter on a port
// of its own.
//
//   metrics.Add(MetricId::kGrpcRequests, 1, {"GetJob", "OK"});     counters
//   metrics.Set(MetricId::kTrainLoss, 2.1, {job_id});               gauges
//   metrics.Observe(MetricId::kQueueWait, 12.5);                    histograms
//
// Label values are passed in the order of the table; a wrong number of them or the wrong kind is a
// programming error and is ignored in release builds. Threads: every method may be called from any
// thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace finetuned {

enum class MetricId {
#define FT_METRIC(id, kind, name, labels, buckets, help) k##id,
#include "server/metrics/metrics.def"
#undef FT_METRIC
};

enum class MetricKind { kCounter, kGauge, kHistogram };
struct MetricDefinition {
  const char* name;
  MetricKind kind;
  std::vector<std::string> labels;
  std::vector<double> buckets;
  const char* help;
};
// The table, in the order of MetricId.
const std::vector<MetricDefinition>& MetricDefinitions();

class Metrics {
 public:
  Metrics();
  ~Metrics();

  void Add(MetricId id, double amount, const std::vector<std::string>& labels = {});
  void Set(MetricId id, double value, const std::vector<std::string>& labels = {});
  void Observe(MetricId id, double value, const std::vector<std::string>& labels = {});
  // Forgets the series with these label values.
  void Remove(MetricId id, const std::vector<std::string>& labels);

  // Called before each scrape, on the exporter's thread (which may block): for values that are
  // read, not counted. Set before Serve.
  void SetBeforeScrape(std::function<void()> before_scrape);

  // Prometheus text of everything, after before_scrape.
  std::string Text();

  // Opens the exporter at HOST:PORT (port 0: any free one), path /metrics. UNAVAILABLE when the
  // port is taken.
  absl::Status Serve(const std::string& listen);
  // The port the exporter listens on; 0 when it does not.
  int port() const;
  // Ends the exporter; no before_scrape call is running or starts afterwards.
  void StopServing();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Resident and virtual memory, CPU time, descriptors and start time of this process, from /proc.
// One for a process: CPU time is counted on from the last update.
class ProcessMetrics {
 public:
  void Update(Metrics& metrics);

 private:
  std::mutex mutex_;
  double counted_cpu_seconds_ = 0;
};

}  // namespace finetuned

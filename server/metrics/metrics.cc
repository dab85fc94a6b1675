#include "server/metrics/metrics.h"

#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "prometheus/counter.h"
#include "prometheus/exposer.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"

namespace finetuned {
namespace {

const std::vector<double> kNone;
// From a store commit to a slow optimizer step.
const std::vector<double> kShort = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                    0.25,   0.5,   1,      2.5,   5,    10,    30,   60};
// From seconds to days.
const std::vector<double> kLong = {1, 5, 15, 60, 300, 900, 3600, 14400, 43200, 86400, 259200};
const std::vector<double> kRatio = {-0.5, -0.25, -0.1, -0.05, -0.02, 0, 0.02, 0.05, 0.1, 0.25, 0.5};

}  // namespace

const std::vector<MetricDefinition>& MetricDefinitions() {
  static const auto* definitions = new std::vector<MetricDefinition>{
#define FT_METRIC(id, kind, name, labels, buckets, help) \
  {name, MetricKind::k##kind, absl::StrSplit(labels, ',', absl::SkipEmpty()), buckets, help},
#include "server/metrics/metrics.def"
#undef FT_METRIC
  };
  return *definitions;
}

struct Metrics::Impl {
  // Collects once before_scrape has run; the exporter holds it weakly.
  struct Scraped : prometheus::Collectable {
    explicit Scraped(Impl* owner) : impl(owner) {}
    std::vector<prometheus::MetricFamily> Collect() const override {
      if (impl->before_scrape) impl->before_scrape();
      return impl->registry.Collect();
    }
    Impl* impl;
  };
  struct Family {
    prometheus::Family<prometheus::Counter>* counter = nullptr;
    prometheus::Family<prometheus::Gauge>* gauge = nullptr;
    prometheus::Family<prometheus::Histogram>* histogram = nullptr;
  };

  // Null when the number of values is not that of the table.
  const MetricDefinition* Definition(MetricId id, const std::vector<std::string>& values,
                                     prometheus::Labels* labels) const {
    const MetricDefinition& definition = MetricDefinitions()[static_cast<size_t>(id)];
    if (definition.labels.size() != values.size()) return nullptr;
    for (size_t i = 0; i < values.size(); ++i) (*labels)[definition.labels[i]] = values[i];
    return &definition;
  }

  prometheus::Registry registry;
  std::vector<Family> families;
  std::function<void()> before_scrape;
  std::shared_ptr<Scraped> scraped = std::make_shared<Scraped>(this);
  std::mutex exposer_mutex;
  std::unique_ptr<prometheus::Exposer> exposer;
  int port = 0;
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {
  for (const MetricDefinition& definition : MetricDefinitions()) {
    Impl::Family family;
    // A series without labels exists from the start, so that "0" and "not there" differ.
    const bool plain = definition.labels.empty();
    switch (definition.kind) {
      case MetricKind::kCounter:
        family.counter = &prometheus::BuildCounter()
                              .Name(definition.name)
                              .Help(definition.help)
                              .Register(impl_->registry);
        if (plain) family.counter->Add({});
        break;
      case MetricKind::kGauge:
        family.gauge = &prometheus::BuildGauge()
                            .Name(definition.name)
                            .Help(definition.help)
                            .Register(impl_->registry);
        if (plain) family.gauge->Add({});
        break;
      case MetricKind::kHistogram:
        family.histogram = &prometheus::BuildHistogram()
                                .Name(definition.name)
                                .Help(definition.help)
                                .Register(impl_->registry);
        if (plain) family.histogram->Add({}, definition.buckets);
        break;
    }
    impl_->families.push_back(family);
  }
}

Metrics::~Metrics() { StopServing(); }

void Metrics::Add(MetricId id, double amount, const std::vector<std::string>& values) {
  prometheus::Labels labels;
  auto* family = impl_->families[static_cast<size_t>(id)].counter;
  if (family == nullptr || !impl_->Definition(id, values, &labels)) return;
  family->Add(labels).Increment(amount);
}

void Metrics::Set(MetricId id, double value, const std::vector<std::string>& values) {
  prometheus::Labels labels;
  auto* family = impl_->families[static_cast<size_t>(id)].gauge;
  if (family == nullptr || !impl_->Definition(id, values, &labels)) return;
  family->Add(labels).Set(value);
}

void Metrics::Observe(MetricId id, double value, const std::vector<std::string>& values) {
  prometheus::Labels labels;
  auto* family = impl_->families[static_cast<size_t>(id)].histogram;
  const MetricDefinition* definition = impl_->Definition(id, values, &labels);
  if (family == nullptr || definition == nullptr) return;
  family->Add(labels, definition->buckets).Observe(value);
}

void Metrics::Remove(MetricId id, const std::vector<std::string>& values) {
  prometheus::Labels labels;
  Impl::Family& family = impl_->families[static_cast<size_t>(id)];
  if (!impl_->Definition(id, values, &labels)) return;
  // Add finds the series that is there.
  if (family.gauge != nullptr) family.gauge->Remove(&family.gauge->Add(labels));
  if (family.counter != nullptr) family.counter->Remove(&family.counter->Add(labels));
}

void Metrics::SetBeforeScrape(std::function<void()> before_scrape) {
  impl_->before_scrape = std::move(before_scrape);
}

std::string Metrics::Text() {
  return prometheus::TextSerializer().Serialize(impl_->scraped->Collect());
}

absl::Status Metrics::Serve(const std::string& listen) {
  std::lock_guard<std::mutex> lock(impl_->exposer_mutex);
  try {
    impl_->exposer = std::make_unique<prometheus::Exposer>(listen, 2);
  } catch (const std::exception&) {
    // The library says no more than that it failed.
    return absl::UnavailableError(
        absl::StrCat("the metrics address ", listen,
                     " cannot be opened: another program has the port, or the host is not one of "
                     "this machine's; "
                     "choose another with --metrics-listen HOST:PORT, or --metrics-listen off"));
  }
  impl_->exposer->RegisterCollectable(impl_->scraped);
  const auto ports = impl_->exposer->GetListeningPorts();
  impl_->port = ports.empty() ? 0 : ports[0];
  return absl::OkStatus();
}

int Metrics::port() const {
  std::lock_guard<std::mutex> lock(impl_->exposer_mutex);
  return impl_->port;
}

void Metrics::StopServing() {
  std::lock_guard<std::mutex> lock(impl_->exposer_mutex);
  impl_->exposer.reset();
  impl_->port = 0;
}

}  // namespace finetuned

// The service figures of the store on this machine: durable submits a second with their latency,
// lists over 100,000 jobs, watchers of one job. Prints each beside the goal; exits 1 when one is
// missed.
//   store_perf [jobs] [watchers]     defaults 100000 1000
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/base/file_util.h"
#include "server/store/event_hub.h"
#include "server/store/job_store.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {
namespace {

bool failed = false;

void Report(const char* what, double value, const char* unit, double goal, bool less_is_better) {
  const bool good = less_is_better ? value <= goal : value >= goal;
  failed |= !good;
  std::printf("%-58s %10.2f %-6s goal %s %.0f  %s\n", what, value, unit,
              less_is_better ? "<=" : ">=", goal, good ? "met" : "MISSED");
}

double Percentile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1,
                         static_cast<size_t>(p * static_cast<double>(values.size())))];
}

// About the size of a real job with its specs and estimate.
v1::Job SampleJob(int i) {
  v1::Job job;
  job.set_job_id(absl::StrCat("job-", i));
  job.set_request_id(absl::StrCat("request-", i));
  job.set_owner(absl::StrCat("owner-", i % 20));
  job.set_state(i % 100 == 0 ? v1::QUEUED : i % 3 == 0 ? v1::FAILED : v1::SUCCEEDED);
  job.set_priority(i % 5);
  job.mutable_create_time()->set_seconds(1700000000 + i);
  (*job.mutable_labels())["team"] = absl::StrCat("team-", i % 50);
  (*job.mutable_metadata())["filler"] = std::string(1500, 'x');
  return job;
}

void Submits(JobStore& store) {
  constexpr int kThreads = 16, kEach = 250;
  std::vector<std::vector<double>> latencies(kThreads);
  std::vector<std::thread> threads;
  const absl::Time begin = absl::Now();
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        v1::Job job = SampleJob(10000000 + t * kEach + i);
        job.set_state(v1::VALIDATING);
        const absl::Time start = absl::Now();
        const absl::Status status = store.WriteSync([&](StoreWriter& writer) -> absl::Status {
          if (auto found = writer.FindByRequestId(job.request_id()); !found.ok())
            return found.status();
          if (auto inserted = writer.InsertJob(job); !inserted.ok()) return inserted;
          return writer.AppendEvent(job.job_id(), v1::JobEvent()).status();
        });
        if (!status.ok()) std::exit(2);
        latencies[t].push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  std::vector<double> all;
  for (const auto& part : latencies) all.insert(all.end(), part.begin(), part.end());
  Report("durable submits (16 clients)", static_cast<double>(all.size()) / seconds, "/s", 1000,
         false);
  Report("submit p99", Percentile(all, 0.99), "ms", 20, true);
}

void Lists(JobStore& store, int jobs) {
  const auto time_list = [&](const char* what, v1::ListJobsRequest request) {
    std::vector<double> times;
    int rows = 0;
    for (int i = 0; i < 50; ++i) {
      const absl::Time start = absl::Now();
      store.ReadSync([&](StoreReader& reader) {
        auto response = reader.ListJobs(request);
        if (!response.ok()) std::exit(2);
        rows = response->jobs_size();
        // On through the pages: depth must not matter.
        if (!response->next_page_token().empty())
          request.set_page_token(response->next_page_token());
      });
      times.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
    }
    Report(absl::StrCat(what, ", ", rows, " rows, p99 of 50 pages").c_str(),
           Percentile(times, 0.99), "ms", 10, true);
  };
  v1::ListJobsRequest request;
  time_list("list newest", request);
  request.set_order_by("priority desc");
  time_list("list by priority", request);
  request.Clear();
  request.add_states(v1::SUCCEEDED);
  request.add_states(v1::FAILED);
  time_list("list two states", request);
  request.Clear();
  request.add_states(v1::RUNNING);
  time_list("list a state that no job is in", request);
  request.Clear();
  request.set_owner("owner-7");
  request.add_states(v1::SUCCEEDED);
  time_list("list owner and state", request);
  request.Clear();
  (*request.mutable_labels())["team"] = "team-7";
  time_list("list by label", request);
  request.Clear();
  request.mutable_created_after()->set_seconds(1700000000 + jobs / 2);
  request.set_order_by("create_time");
  time_list("list from the middle", request);
}

void Watchers(JobStore& store, int watchers) {
  constexpr int kEvents = 500;
  constexpr int kThreads = 4;  // as gRPC would have
  EventHub hub(&store);
  store.SetEventListener([&](const std::string& job_id, int64_t seq, EventHub::Event event) {
    hub.OnEvent(job_id, seq, std::move(event));
  });
  v1::Job job = SampleJob(99999999);
  if (!store.WriteSync([&](StoreWriter& writer) { return writer.InsertJob(job); }).ok())
    std::exit(2);

  struct Client {
    std::unique_ptr<EventHub::Watcher> watcher;
    int64_t at = 0;
  };
  std::vector<Client> clients(watchers);
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<int> ready;
  std::atomic<bool> wrong{false};
  std::atomic<int> finished{0};
  for (int i = 0; i < watchers; ++i) {
    clients[i].watcher = hub.Subscribe(job.job_id(), 0, [&, i] {
      std::lock_guard<std::mutex> lock(mutex);
      ready.push_back(i);
      wake.notify_one();
    });
    ready.push_back(i);
  }
  const absl::Time begin = absl::Now();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      while (finished < watchers) {
        std::vector<int> mine;
        {
          std::unique_lock<std::mutex> lock(mutex);
          wake.wait_for(lock, std::chrono::milliseconds(50), [&] { return !ready.empty(); });
          const size_t n = std::min<size_t>(ready.size(), 32);
          mine.assign(ready.end() - static_cast<int64_t>(n), ready.end());
          ready.resize(ready.size() - n);
        }
        for (const int i : mine) {
          Client& client = clients[i];
          while (true) {
            auto events = client.watcher->Next(64);
            if (!events.ok()) std::exit(2);
            if (events->empty()) break;
            for (const EventHub::Event& bytes : *events) {
              v1::JobEvent event;
              if (!event.ParseFromString(*bytes) || event.seq() != ++client.at) wrong = true;
              if (client.at == kEvents) ++finished;
            }
          }
        }
      }
    });
  }
  for (int i = 0; i < kEvents; ++i) {
    v1::JobEvent event;
    event.mutable_metrics()->set_loss(i);
    store.Write(
        [&job, event](StoreWriter& writer) {
          return writer.AppendEvent(job.job_id(), event).status();
        },
        nullptr);
    absl::SleepFor(begin + absl::Milliseconds(10) * (i + 1) - absl::Now());
  }
  const absl::Time sent = absl::Now();
  for (std::thread& thread : threads) thread.join();
  Report(absl::StrCat(watchers, " watchers, 100 events/s: lag at the end").c_str(),
         absl::ToDoubleMilliseconds(absl::Now() - sent), "ms", 1000, true);
  Report("events lost or out of order", wrong ? 1 : 0, "", 0, true);
  clients.clear();
  store.Close();
}

int Main(int jobs, int watchers) {
  TempDir dir;
  auto store = OpenSqliteStore({.path = dir / "jobs.db"});
  if (!store.ok()) return 2;
  absl::Time begin = absl::Now();
  for (int i = 0; i < jobs;) {
    const absl::Status status = (*store)->WriteSync([&](StoreWriter& writer) -> absl::Status {
      for (int n = 0; n < 1000 && i < jobs; ++n, ++i) {
        if (auto inserted = writer.InsertJob(SampleJob(i)); !inserted.ok()) return inserted;
      }
      return absl::OkStatus();
    });
    if (!status.ok()) return 2;
  }
  std::printf("%d jobs inserted in %.1f s\n", jobs, absl::ToDoubleSeconds(absl::Now() - begin));
  (*store).reset();
  begin = absl::Now();
  store = OpenSqliteStore({.path = dir / "jobs.db"});
  if (!store.ok()) return 2;
  std::printf("opened with integrity check in %.2f s (%.0f MB)\n",
              absl::ToDoubleSeconds(absl::Now() - begin),
              static_cast<double>(DirectoryBytes(dir.path())) / 1e6);
  Submits(**store);
  Lists(**store, jobs);
  Watchers(**store, watchers);
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace finetuned

int main(int argc, char** argv) {
  return finetuned::Main(argc > 1 ? std::atoi(argv[1]) : 100000,
                         argc > 2 ? std::atoi(argv[2]) : 1000);
}

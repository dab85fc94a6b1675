// finetuned: wiring only. What each part does stands in its header; the order in which they start
// and end stands here.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "server/api/artifact_files.h"
#include "server/api/controller_verbs.h"
#include "server/api/grpc_server.h"
#include "server/artifacts/path_roots.h"
#include "server/config.h"
#include "server/launcher/launcher.h"
#include "server/launcher/local_process_runner.h"
#include "server/logging.h"
#include "server/metrics/job_metrics.h"
#include "server/metrics/metrics.h"
#include "server/notify.h"
#include "server/self_check.h"
#include "server/store/clock.h"
#include "server/store/data_dir_lock.h"
#include "server/store/job_state.h"

namespace finetuned {
namespace {

constexpr absl::Duration kShutdownGrace = absl::Seconds(5);
constexpr absl::Duration kLockPatience = absl::Seconds(2);
constexpr absl::Duration kStalePartials = absl::Hours(24 * 7);

std::optional<std::string> FromEnvironment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

google::protobuf::Timestamp Now() {
  google::protobuf::Timestamp stamp;
  stamp.set_seconds(absl::ToUnixSeconds(absl::Now()));
  return stamp;
}

LocalLauncherOptions LauncherOptions(const Config& config) {
  LocalLauncherOptions options;
  options.worker_path = config.worker;
  options.socket_path = WorkerSocketPath(config.data_dir);
  options.environment = WorkerEnvironment();
  return options;
}

// A server that was killed while it started a worker may leave the lock with the child for the
// moment before its exec.
absl::StatusOr<DataDirLock> LockDataDir(const std::string& data_dir) {
  const absl::Time give_up = absl::Now() + kLockPatience;
  while (true) {
    auto lock = DataDirLock::Acquire(data_dir);
    if (!absl::IsFailedPrecondition(lock.status()) || absl::Now() >= give_up) return lock;
    absl::SleepFor(absl::Milliseconds(50));
  }
}

// Values that are read at each scrape rather than counted.
void ReadGauges(Metrics& metrics, ProcessMetrics& process, JobStore& store, const EventHub& hub,
                const std::string& data_dir, const v1::ListDevicesResponse& devices) {
  process.Update(metrics);
  metrics.Set(MetricId::kWatchers, static_cast<double>(hub.watchers()));
  if (auto free = FreeDiskBytes(data_dir); free.ok())
    metrics.Set(MetricId::kDiskFree, static_cast<double>(*free));
  store.ReadSync([&](StoreReader& reader) {
    auto counts = reader.CountByState();
    if (!counts.ok()) return;
    for (const JobStateRow& row : JobStateTable()) {
      double count = 0;
      for (const auto& [state, jobs] : *counts)
        if (state == row.state) count = static_cast<double>(jobs);
      metrics.Set(MetricId::kJobs, count, {JobStateName(row.state)});
    }
  });
  for (const v1::Device& device : devices.devices()) {
    if (device.id() == "cpu") continue;
    metrics.Set(MetricId::kGpuMemory, static_cast<double>(device.total_bytes()),
                {device.id(), "total"});
    metrics.Set(MetricId::kGpuMemory,
                static_cast<double>(device.total_bytes() - device.free_bytes()),
                {device.id(), "used"});
    metrics.Set(MetricId::kGpuMemory, static_cast<double>(device.reserved_bytes()),
                {device.id(), "predicted"});
  }
}

// Until SIGTERM or SIGINT. The signals are blocked in every thread, so they are taken here alone.
void WaitForSignals(const sigset_t& signals, const std::function<void()>& reload) {
  const absl::Duration watchdog = WatchdogInterval();
  const timespec timeout = absl::ToTimespec(std::min(watchdog, absl::Seconds(3600)));
  while (true) {
    const int signal = sigtimedwait(&signals, nullptr, &timeout);
    if (signal == SIGTERM || signal == SIGINT) {
      LogInfo(signal == SIGTERM ? "SIGTERM: stopping; workers go on"
                                : "SIGINT: stopping; workers go on");
      return;
    }
    if (signal == SIGHUP) reload();
    if (watchdog < absl::InfiniteDuration()) NotifyServiceManager("WATCHDOG=1");
  }
}

absl::Status Serve(const Config& config, const std::function<void()>& reload) {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  FT_RETURN_IF_ERROR(MakeDirectories(config.data_dir));
  FT_ASSIGN_OR_RETURN(const DataDirLock lock, LockDataDir(config.data_dir));

  Metrics metrics;
  metrics.Set(MetricId::kBuildInfo, 1, {FINETUNED_VERSION});
  JobMetrics job_metrics(&metrics);
  SqliteStoreOptions store_options;
  store_options.path = config.data_dir + "/finetuned.db";
  store_options.on_commit = [&metrics](absl::Duration time) {
    metrics.Observe(MetricId::kStoreCommit, absl::ToDoubleSeconds(time));
  };
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<JobStore> store, OpenSqliteStore(store_options));
  store->ReadSync([&](StoreReader& reader) {
    auto active = reader.JobsInStates({v1::VALIDATING, v1::QUEUED, v1::STARTING, v1::RUNNING,
                                       v1::PAUSING, v1::PAUSED, v1::CANCELLING});
    if (active.ok()) job_metrics.Seed(*active);
  });
  EventHub hub(store.get());
  store->SetEventListener(
      [&](const std::string& job_id, int64_t seq, std::shared_ptr<const std::string> event) {
        job_metrics.OnEvent(job_id, *event);
        hub.OnEvent(job_id, seq, std::move(event));
      });

  UploadStoreOptions upload_options;
  upload_options.root = config.data_dir + "/uploads";
  upload_options.disk_reserve_bytes = static_cast<uint64_t>(config.min_free_disk_mib) << 20;
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<UploadStore> uploads,
                      UploadStore::Open(upload_options));
  const PathRoots roots(config.model_roots, config.data_roots, uploads.get());

  LocalProcessRunner runner;
  LocalLauncher launcher(&runner, LauncherOptions(config));
  SystemClock clock;
  ControllerOptions controller_options;
  controller_options.data_dir = config.data_dir;
  controller_options.version = FINETUNED_VERSION;
  controller_options.lease = absl::Seconds(config.worker_lease_seconds);
  controller_options.stall_timeout = absl::Seconds(config.stall_timeout_seconds);
  controller_options.memory_fraction = config.memory_fraction;
  controller_options.disk_reserve_bytes = static_cast<uint64_t>(config.min_free_disk_mib) << 20;
  controller_options.cpu_threads = static_cast<int>(config.cpu_threads);
  controller_options.host_memory_bytes = static_cast<uint64_t>(config.host_memory_mib) << 20;
  JobController::Dependencies dependencies;
  dependencies.store = store.get();
  dependencies.launcher = &launcher;
  dependencies.clock = &clock;
  dependencies.paths.model = [&roots](const std::string& path) { return roots.Model(path); };
  dependencies.paths.data = [&roots](const std::string& path) { return roots.Data(path); };
  ControllerHooks hooks;
  hooks.on_state = [](const v1::Job& job, v1::JobState from) {
    Log(v1::INFO, job.job_id(),
        from == v1::JOB_STATE_UNSPECIFIED
            ? absl::StrCat("created by ", job.owner())
            : absl::StrCat(JobStateName(from), " → ", JobStateName(job.state())));
  };
  hooks.on_restart = [&metrics](v1::FailureReason reason) {
    metrics.Add(MetricId::kWorkerRestarts, 1, {v1::FailureReason_Name(reason)});
  };
  hooks.log = [](v1::Level level, const std::string& job_id, const std::string& text) {
    Log(level, job_id, text);
  };
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<JobController> controller,
                      JobController::Start(controller_options, dependencies, hooks));

  ControllerVerbs verbs(controller.get());
  ArtifactFiles files(uploads.get(), store.get(), [&config](const std::string& job_id) {
    return JobDirectory(config.data_dir, job_id);
  });
  WorkPool pool(4);
  pool.Post([&uploads] {
    if (auto removed = uploads->RemoveStalePartials(kStalePartials); removed.ok() && *removed > 0)
      LogInfo(absl::StrCat("removed ", *removed,
                           " unfinished uploads that nobody has resumed for a week"));
  });

  ProcessMetrics process;
  std::mutex devices_mutex;
  v1::ListDevicesResponse devices;  // of the scrape before
  metrics.SetBeforeScrape([&] {
    controller->ListDevices([&](absl::StatusOr<v1::ListDevicesResponse> answer) {
      std::lock_guard<std::mutex> devices_lock(devices_mutex);
      if (answer.ok()) devices = *std::move(answer);
    });
    std::lock_guard<std::mutex> devices_lock(devices_mutex);
    ReadGauges(metrics, process, *store, hub, config.data_dir, devices);
  });
  if (config.metrics_listen != "off") FT_RETURN_IF_ERROR(metrics.Serve(config.metrics_listen));

  ServiceParts parts;
  parts.store = store.get();
  parts.hub = &hub;
  parts.verbs = &verbs;
  parts.files = &files;
  parts.pool = &pool;
  parts.info.set_version(FINETUNED_VERSION);
  parts.info.set_data_dir(config.data_dir);
  *parts.info.mutable_model_roots() = {config.model_roots.begin(), config.model_roots.end()};
  *parts.info.mutable_data_roots() = {config.data_roots.begin(), config.data_roots.end()};
  *parts.info.mutable_start_time() = Now();
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<GrpcServer> server,
                      GrpcServer::Start({config.listen}, parts, &metrics));

  const std::string address =
      server->ports()[0] > 0
          ? absl::StrCat(config.listen.substr(0, config.listen.rfind(':')), ":", server->ports()[0])
          : config.listen;
  LogInfo(absl::StrCat(
      "finetuned ", FINETUNED_VERSION, " serves on ", address,
      config.metrics_listen == "off" ? "" : absl::StrCat(", metrics on port ", metrics.port()),
      ", data in ", config.data_dir));
  if (!IsLocalAddress(config.listen))
    Log(v1::WARNING, "",
        "--insecure: calls from other machines are neither encrypted nor authenticated");
  NotifyServiceManager(absl::StrCat("READY=1\nSTATUS=serving on ", address));
  WaitForSignals(signals, reload);

  // In order: no new calls and watches told where to resume; open calls answered by the controller;
  // the transport; files under way; the exporter; and the store last, which writes what was
  // accepted.
  NotifyServiceManager("STOPPING=1");
  server->StopAccepting();
  controller->Shutdown();
  server->Shutdown(kShutdownGrace);
  pool.Close();
  metrics.StopServing();
  store->Close();
  LogInfo("stopped");
  return absl::OkStatus();
}

int Check(const Config& config) {
  LocalProcessRunner runner;
  LocalLauncher launcher(&runner, LauncherOptions(config));
  const std::vector<CheckResult> results = CheckServer(config, launcher);
  std::cout << FormatCheck(results);
  return Passed(results) ? 0 : 1;
}

int Main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  std::error_code error;
  // The worker lies beside the binary itself, also when it is started through PATH or a link.
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string program = error ? argv[0] : self.string();
  const auto line = ParseCommandLine(program, args, FromEnvironment);
  if (!line.ok()) {
    std::cerr << "finetuned: " << line.status().message() << "\n";
    return 2;
  }
  switch (line->command) {
    case ServerCommand::kHelp:
      std::cout << line->help;
      return 0;
    case ServerCommand::kVersion:
      std::cout << "finetuned " << FINETUNED_VERSION << "\n";
      return 0;
    case ServerCommand::kConfig:
      std::cout << DescribeConfig(line->config);
      return 0;
    case ServerCommand::kCheck:
      return Check(line->config);
    case ServerCommand::kServe:
      break;
  }
  StartLogging(line->config.log_format, line->config.log_level);
  const absl::Status status = Serve(line->config, [&] {
    const auto again = ParseCommandLine(program, args, FromEnvironment);
    if (!again.ok())
      return LogError(
          absl::StrCat("SIGHUP: the configuration stays: ", std::string(again.status().message())));
    SetLogLevel(again->config.log_level);
    LogInfo(absl::StrCat("SIGHUP: log-level is ", again->config.log_level));
  });
  if (status.ok()) return 0;
  LogError(std::string(status.message()));
  return 1;
}

}  // namespace
}  // namespace finetuned

int main(int argc, char** argv) { return finetuned::Main(argc, argv); }

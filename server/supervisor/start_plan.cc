#include "server/supervisor/start_plan.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/store/job_state.h"

namespace finetuned {
namespace {

bool RunsBefore(const QueuedJob& a, const QueuedJob& b) {
  const auto key = [](const v1::Job& job) {
    return std::make_tuple(-job.priority(), job.create_time().seconds(), job.create_time().nanos(),
                           job.job_id());
  };
  return key(*a.job) < key(*b.job);
}

StartDecision Wait(const v1::Job& job, v1::PendingReason reason, std::string detail) {
  StartDecision decision;
  decision.job_id = job.job_id();
  decision.reason = reason;
  decision.detail = std::move(detail);
  return decision;
}

// What a job waits for whatever the devices hold; false when nothing.
bool Blocked(const StartPlanInput& input, const QueuedJob& queued, StartDecision* decision) {
  const v1::Job& job = *queued.job;
  if (job.held()) {
    *decision = Wait(job, v1::HELD, "held until UpdateJob releases it");
    return true;
  }
  for (const std::string& id : job.after()) {
    auto it = input.dependency_states->find(id);
    const v1::JobState state =
        it == input.dependency_states->end() ? v1::JOB_STATE_UNSPECIFIED : it->second;
    if (state == v1::SUCCEEDED) continue;
    std::string detail = absl::StrCat("waits for job ", id);
    if (state == v1::JOB_STATE_UNSPECIFIED) {
      absl::StrAppend(&detail, ", which is gone; cancel this one");
    } else {
      absl::StrAppend(&detail, ", which is ", JobStateName(state));
      if (IsFinal(state)) absl::StrAppend(&detail, "; rerun that one, or cancel this one");
    }
    *decision = Wait(job, v1::DEPENDENCY, std::move(detail));
    return true;
  }
  if (queued.process_ending) {
    *decision = Wait(job, v1::RESOURCES, "the process of its last attempt is still ending");
    return true;
  }
  if (queued.back_off > absl::ZeroDuration()) {
    // Rounded: the text is stored, and need not change with every tick.
    *decision = Wait(job, v1::RESOURCES, "waits a moment before it is tried again");
    return true;
  }
  const uint64_t disk = input.disk_reserve_bytes + job.estimate().memory().disk_bytes();
  if (input.disk_free_bytes < disk) {
    *decision = Wait(job, v1::DISK,
                     absl::StrCat("needs ", FormatBytes(disk), " of disk (",
                                  FormatBytes(input.disk_reserve_bytes), " of it kept free), ",
                                  FormatBytes(input.disk_free_bytes), " are there"));
    return true;
  }
  return false;
}

bool IsGpuJob(const v1::Job& job) { return job.resolved_spec().devices().value() > 0; }

uint64_t Planned(uint64_t bytes, const v1::Job& job, double server_fraction) {
  const double own = job.resolved_spec().has_memory_fraction()
                         ? job.resolved_spec().memory_fraction()
                         : server_fraction;
  return static_cast<uint64_t>(static_cast<double>(bytes) * std::min(own, server_fraction));
}

StartDecision NeverFits(const v1::Job& job, uint64_t bytes, uint64_t most) {
  StartDecision decision;
  decision.kind = StartDecision::kFail;
  decision.job_id = job.job_id();
  v1::Failure& failure = decision.failure;
  failure.set_reason(IsGpuJob(job) ? v1::OUT_OF_MEMORY : v1::HOST_OUT_OF_MEMORY);
  failure.set_step(-1);
  failure.set_memory_requested_bytes(bytes);
  failure.set_memory_available_bytes(most);
  failure.set_message(absl::StrCat("needs ", FormatBytes(bytes), ", more than the ",
                                   FormatBytes(most), " planned on the largest ",
                                   IsGpuJob(job) ? "GPU" : "share of host memory"));
  failure.add_suggestions("per_device_train_batch_size=1");
  failure.add_suggestions("gradient_checkpointing=true");
  failure.add_suggestions("load_in_4bit=true");
  return decision;
}

}  // namespace

std::string FormatBytes(uint64_t bytes) {
  const double gib = static_cast<double>(bytes) / (1 << 30);
  return gib >= 1 ? absl::StrFormat("%.1f GiB", gib)
                  : absl::StrFormat("%.0f MiB", static_cast<double>(bytes) / (1 << 20));
}

uint64_t PlannedBytes(const v1::Job& job) {
  const v1::MemoryEstimate& memory = job.estimate().memory();
  return IsGpuJob(job) ? memory.device_peak_bytes()
                       : std::max(memory.device_peak_bytes(), memory.host_peak_bytes());
}

std::vector<StartDecision> PlanStarts(const StartPlanInput& input) {
  std::vector<QueuedJob> jobs = input.jobs;
  std::sort(jobs.begin(), jobs.end(), RunsBefore);
  std::vector<DeviceRoom> devices = input.devices;
  std::map<bool, std::string> held_back_by;  // GPU job? → the first job that waits for room
  std::vector<StartDecision> decisions;
  for (const QueuedJob& queued : jobs) {
    const v1::Job& job = *queued.job;
    StartDecision decision;
    if (Blocked(input, queued, &decision)) {
      decisions.push_back(std::move(decision));
      continue;
    }
    const bool gpu = IsGpuJob(job);
    const uint64_t bytes = PlannedBytes(job);
    DeviceRoom* best = nullptr;
    uint64_t best_left = 0, best_plan = 0, most = 0;
    for (DeviceRoom& device : devices) {
      if (absl::StartsWith(device.device, "cuda") != gpu) continue;
      most = std::max(most, Planned(device.total_bytes, job, input.memory_fraction));
      const uint64_t plan = Planned(device.free_bytes, job, input.memory_fraction);
      const uint64_t left = plan > device.reserved_bytes ? plan - device.reserved_bytes : 0;
      if (best == nullptr || left > best_left) {
        best = &device;
        best_left = left;
        best_plan = plan;
      }
    }
    if (best == nullptr) {
      decisions.push_back(Wait(job, v1::RESOURCES, "no usable GPU is there now"));
      continue;
    }
    if (bytes > most) {
      decisions.push_back(NeverFits(job, bytes, most));
      continue;
    }
    if (auto ahead = held_back_by.find(gpu); ahead != held_back_by.end()) {
      decisions.push_back(Wait(job, v1::PRIORITY, absl::StrCat("behind job ", ahead->second)));
      continue;
    }
    if (bytes > best_left) {
      held_back_by[gpu] = job.job_id();
      decisions.push_back(
          Wait(job, v1::RESOURCES,
               absl::StrCat("needs ", FormatBytes(bytes), ", ", FormatBytes(best_left), " of ",
                            FormatBytes(best_plan), " planned are free on ", best->device)));
      continue;
    }
    decision.kind = StartDecision::kStart;
    decision.job_id = job.job_id();
    decision.device = best->device;
    decision.bytes = bytes;
    best->reserved_bytes += bytes;
    decisions.push_back(std::move(decision));
  }
  return decisions;
}

}  // namespace finetuned
